"""Small synthetic stores and the tools to compare and damage them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from small_stores import small_spec

from geofm_pipeline.chips import Chip, ChipRequest
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.store import StoreSpec
from geofm_pipeline.store.synthetic import SyntheticReader, synthetic_chip, synthetic_requests, write_synthetic_store

MakeSpec: TypeAlias = Callable[..., StoreSpec]
Tree: TypeAlias = dict[str, bytes]


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """:func:`small_spec`."""
    return small_spec


@pytest.fixture(scope="session")
def small_chip() -> Callable[[ChipRequest], Chip]:
    """Synthetic chips of whatever size the request asks."""
    return synthetic_chip


@pytest.fixture(scope="session")
def faults(make_spec: MakeSpec) -> dict[int, BlockReadError]:
    """Permanent faults of row 5 and of the whole third shard (rows 8 to 11)."""
    requests = synthetic_requests(make_spec())
    return {
        requests[row].chip.unit: BlockReadError(granule="HLS.L30.X", band="B04", cause="404 Not Found")
        for row in (5, 8, 9, 10, 11)
    }


@pytest.fixture(scope="session")
def _sealed(tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec, faults: dict[int, BlockReadError]) -> Path:
    out = tmp_path_factory.mktemp("sealed")
    write_synthetic_store(out, make_spec(), SyntheticReader(faults=faults))
    return out / "store.zarr"


@pytest.fixture(scope="session")
def sealed_tree(_sealed: Path) -> Tree:
    """Every file of the sealed store, by path, as bytes."""
    return _tree(_sealed)


@pytest.fixture
def sealed(_sealed: Path, tmp_path: Path) -> Path:
    """A copy of the sealed store, to damage."""
    return Path(shutil.copytree(_sealed, tmp_path / "store.zarr"))


@pytest.fixture(scope="session")
def read_tree() -> Callable[[Path], Tree]:
    """All files under a folder by relative path."""
    return _tree


def _tree(folder: Path) -> Tree:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
