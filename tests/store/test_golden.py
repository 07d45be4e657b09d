"""The golden store: today's writer still makes it, and zarr-python, tensorstore and our own reader agree on it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from numpy.typing import NDArray

from geofm_model import Store, TombstoneError
from geofm_pipeline.store import verify
from geofm_pipeline.store.layout import codec_versions

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that made the golden store."""
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What the golden store's pixels hash to, independent of any codec."""
    loaded: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
    return loaded


def _check(images: NDArray[np.int16], fmasks: NDArray[np.uint8], expected: dict[str, Any]) -> None:
    for row in range(10):
        if row in expected["tombstones"]:
            assert (images[row] == -9999).all()
            assert (fmasks[row] == 255).all()
        else:
            assert sha256(images[row].astype("<i2").tobytes()).hexdigest() == expected["image"][row]
            assert sha256(fmasks[row].tobytes()).hexdigest() == expected["fmask"][row]


def test_zarr_python_reads_the_golden_store(expected: dict[str, Any]) -> None:
    """A store of this schema made earlier has its pixels under zarr-python."""
    group = zarr.open_group(str(GOLDEN / "store.zarr"), mode="r", zarr_format=3, use_consolidated=False)
    _check(np.asarray(group["image"][...]), np.asarray(group["fmask"][...]), expected)
    assert np.asarray(group["unit"][...]).tolist() == expected["units"]


def test_tensorstore_reads_the_golden_store(expected: dict[str, Any]) -> None:
    """And under tensorstore."""

    def read(name: str) -> Any:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(GOLDEN / "store.zarr" / name)}}
        return tensorstore.open(spec, open=True).result().read().result()

    _check(read("image"), read("fmask"), expected)
    assert read("unit").tolist() == expected["units"]


def test_our_reader_reads_the_golden_store(expected: dict[str, Any]) -> None:
    """And under our own strict reader, which names tombstones instead of giving fill."""
    store = Store.open(GOLDEN / "store.zarr")
    assert store.readable.tolist() == [row for row in range(10) if row not in expected["tombstones"]]
    for row in range(10):
        if row in expected["tombstones"]:
            with pytest.raises(TombstoneError):
                store.sample(row)
            continue
        sample = store.sample(row)
        assert sha256(sample.image.tobytes()).hexdigest() == expected["image"][row]
        assert sha256(sample.fmask.tobytes()).hexdigest() == expected["fmask"][row]
        assert sample.unit == expected["units"][row]


def test_the_golden_store_is_intact() -> None:
    """It verifies, so the manifest and checksums of earlier stores still mean the same."""
    assert verify(GOLDEN / "store.zarr").ok


def test_the_writer_makes_the_golden_store_again(
    maker: ModuleType, tmp_path: Path, read_tree: Callable[[Path], dict[str, bytes]]
) -> None:
    """Same spec and pixels give the same bytes; under other codec versions at least the same content and layout."""
    again = maker.write_golden(tmp_path)
    old, new = read_tree(GOLDEN / "store.zarr"), read_tree(again)
    recorded = json.loads(old["zarr.json"])["attributes"]["geofm"]["codec_versions"]
    if recorded == codec_versions():
        assert new == old
        return
    assert new.keys() == old.keys()
    assert [name for name in old if name.endswith("0/zarr.json") and old[name] != new[name]] == []
    for row in Store.open(again).readable:
        assert np.array_equal(Store.open(again).sample(row).image, Store.open(GOLDEN / "store.zarr").sample(row).image)


def test_the_expected_hashes_are_those_of_the_script(maker: ModuleType, expected: dict[str, Any]) -> None:
    """The script's integer pixels are the same on this machine."""
    assert maker.expected() == expected
