"""Synthetic stores to stream from, and shapes that are checked wherever annotations name their axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import install_import_hook
from small_stores import small_spec

from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.store.synthetic import SyntheticReader, synthetic_requests, write_synthetic_store

SHAPED = ["geofm_model.models", "geofm_model.views", "geofm_model.transfer", "geofm_model.training.masked"]
"""Modules whose functions and records check their annotations in these tests, before anybody has imported them."""
# An integer is a number, as in PEP 484; beartype alone would refuse a ratio of 0.
install_import_hook(SHAPED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

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
