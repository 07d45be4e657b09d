"""Synthetic stores to stream from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_stores import small_spec

from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.store.synthetic import SyntheticReader, synthetic_requests, write_synthetic_store

BURIED = (5, 8, 9, 10, 11)
"""Indices of the tombstones: one row, and a whole shard."""
MakeStore = Callable[..., Path]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Writes the store of :func:`small_spec`, some rows tombstones; gives its folder."""

    def make(**changes: object) -> Path:
        spec = small_spec(**changes)
        requests = synthetic_requests(spec)
        faults = {
            requests[row].chip.unit: BlockReadError(granule="HLS.L30.X", band="B04", cause="404 Not Found")
            for row in BURIED
            if row < spec.n
        }
        out = tmp_path_factory.mktemp("stream")
        write_synthetic_store(out, spec, SyntheticReader(faults=faults))
        return out / "store.zarr"

    return make


@pytest.fixture(scope="session")
def store(make_store: MakeStore) -> Path:
    """The store with nothing changed; read only."""
    return make_store()
