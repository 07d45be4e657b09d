"""Synthetic stores to stream from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.store import StoreSpec
from geofm_pipeline.store.synthetic import SyntheticReader, synthetic_requests, write_synthetic_store

BURIED = (5, 8, 9, 10, 11)
"""Indices of the tombstones: one row, and a whole shard."""
MakeStore = Callable[..., Path]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Writes a store of 21 samples of 2 × 6 × 16 × 16 in 6 shards, any field changed; gives its folder."""

    def make(**changes: object) -> Path:
        fields: dict[str, object] = {
            "n": 21,
            "timesteps": 2,
            "height": 16,
            "width": 16,
            "seed": 1,
            "shard_size": 4,
            "group_shards": 2,
            "provenance": {"plan_digest": "aa", "response_digest": "bb"},
        }
        spec = StoreSpec(**{**fields, **changes})  # type: ignore[arg-type]
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
