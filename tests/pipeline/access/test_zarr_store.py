"""A Zarr over a byte source: both versions, shards, missing chunks as fill, refused chunks as errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from servers.loopback import App, Reply, Request, ranged, serving

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.access.zarr_store import ABSENT_CHUNKS, ArchiveStore

VALUES = np.arange(6 * 8 * 10, dtype=np.float32).reshape(6, 8, 10)


def _write(path: Path, version: int, shards: bool) -> None:
    data = xr.Dataset({"a": (("t", "y", "x"), VALUES)}, {"y": np.arange(8.0), "x": np.arange(10.0)})
    encoding: dict[str, Any] = {"chunks": (2, 4, 5)}
    if shards:
        encoding["shards"] = (6, 8, 10)
    data.to_zarr(path, zarr_format=version, encoding={"a": encoding}, consolidated=False)
    if version == 2:
        zarr.consolidate_metadata(path, zarr_format=2)
    else:
        with pytest.warns(Warning, match="not part in the Zarr format 3"):
            zarr.consolidate_metadata(path, zarr_format=3)


def _app(folder: Path, status: int = 404) -> App:
    def app(request: Request) -> Reply:
        file = folder / request.path.lstrip("/")
        return ranged(request, Reply(body=file.read_bytes())) if file.is_file() else Reply(status=status)

    return app


def _source() -> ArchiveSource:
    return ArchiveSource(Access(attempts=2, first_wait_s=0.01))


def _opened(source: ArchiveSource, url: str) -> xr.DataArray:
    store: Any = ArchiveStore(source, url)
    return xr.open_dataset(store, engine="zarr", consolidated=True, chunks=None)["a"]


@pytest.mark.parametrize(("version", "shards"), [(2, False), (3, False), (3, True)])
def test_values_are_those_of_the_files(tmp_path: Path, version: int, shards: bool) -> None:
    """Whole arrays, windows and scattered steps of both versions, shards by ranges, equal plain numpy."""
    _write(tmp_path / "x.zarr", version, shards)
    with serving(_app(tmp_path)) as server:
        found = _opened(_source(), f"{server.url}/x.zarr")
        assert np.array_equal(found.values, VALUES)
        assert np.array_equal(found.isel(t=[0, 3, 5], y=slice(2, 7), x=slice(1, 9)).values, VALUES[[0, 3, 5], 2:7, 1:9])


def test_only_the_chunks_of_a_window_are_read(tmp_path: Path) -> None:
    """A window in one chunk is one request."""
    _write(tmp_path / "x.zarr", 2, False)
    with serving(_app(tmp_path)) as server:
        found = _opened(_source(), f"{server.url}/x.zarr")
        before = len(server.log)
        assert np.array_equal(found.isel(t=slice(0, 2), y=slice(0, 3), x=slice(5, 8)).values, VALUES[:2, :3, 5:8])
        assert [request.path for request in server.log[before:]] == ["/x.zarr/a/0.0.1"]


def test_a_bucket_that_may_not_be_listed_is_opened(tmp_path: Path) -> None:
    """403 for the documents of the other version is no obstacle."""
    _write(tmp_path / "x.zarr", 2, False)
    with serving(_app(tmp_path, status=403)) as server:
        store: Any = ArchiveStore(_source(), f"{server.url}/x.zarr")
        assert zarr.open_group(store, mode="r").metadata.consolidated_metadata is not None
        assert np.array_equal(_opened(_source(), f"{server.url}/x.zarr").values, VALUES)


def _without(app: App, status: int) -> App:
    return lambda request: Reply(status=status) if request.path.endswith("/a/1.0.1") else app(request)


def test_a_missing_chunk_is_fill_and_counted(tmp_path: Path) -> None:
    """404 for a chunk is the fill value, as Zarr has it, and the tally knows."""
    _write(tmp_path / "x.zarr", 2, False)
    source = _source()
    with serving(_without(_app(tmp_path), 404)) as server:
        found = _opened(source, f"{server.url}/x.zarr").values
    assert np.isnan(found[2:4, :4, 5:]).all()
    assert np.isfinite(found).sum() == VALUES.size - 2 * 4 * 5
    assert source.tally.notes[ABSENT_CHUNKS] == 1


@pytest.mark.parametrize(("status", "fault"), [(403, Fault.LOGIN), (500, Fault.SERVER), (429, Fault.THROTTLED)])
def test_a_chunk_that_cannot_be_had_raises(tmp_path: Path, status: int, fault: Fault) -> None:
    """Refusals and errors after the retries are errors, never fill."""
    _write(tmp_path / "x.zarr", 2, False)
    with serving(_without(_app(tmp_path), status)) as server:
        found = _opened(_source(), f"{server.url}/x.zarr")
        with pytest.raises(FetchError) as caught:
            found.load()
    assert caught.value.fault == fault


def test_a_transient_fault_is_repeated(tmp_path: Path) -> None:
    """A chunk that fails once is read at the second try."""
    _write(tmp_path / "x.zarr", 2, False)
    plain, failed = _app(tmp_path), list[str]()

    def app(request: Request) -> Reply:
        if request.path.endswith("/a/1.0.1") and not failed:
            failed.append(request.path)
            return Reply(status=503)
        return plain(request)

    source = _source()
    with serving(app) as server:
        assert np.array_equal(_opened(source, f"{server.url}/x.zarr").values, VALUES)
    assert source.tally.retry_count == 1
    assert not source.tally.failures


def test_the_store_is_read_only_and_travels(tmp_path: Path) -> None:
    """Nothing can be written or listed; a pickled store reads the same."""
    _write(tmp_path / "x.zarr", 2, False)
    with serving(_app(tmp_path)) as server:
        store = ArchiveStore(_source(), f"{server.url}/x.zarr")
        assert not any((store.supports_writes, store.supports_deletes, store.supports_listing))
        calls: tuple[Callable[[], Any], ...] = (store.list, lambda: store.list_prefix("a"), lambda: store.list_dir("a"))
        for call in calls:
            with pytest.raises(NotImplementedError):
                call()
        again = pickle.loads(pickle.dumps(store))
        assert again == store
        assert np.array_equal(xr.open_dataset(again, engine="zarr", consolidated=True, chunks=None)["a"].values, VALUES)
