"""What a sealed store holds: the pixels that were read, exact statistics, tombstones; and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr

from geofm_pipeline.errors import BlockReadError, InputError, OutputConflictError
from geofm_pipeline.store import RowRequest, StoreSpec, create, finalise, write_group
from geofm_pipeline.store.sums import BandSums, chip_sums
from geofm_pipeline.store.synthetic import (
    SyntheticReader,
    synthetic_chip,
    synthetic_requests,
    synthetic_rows,
    write_synthetic_store,
)

MakeSpec = Callable[..., StoreSpec]


def test_zarr_python_and_tensorstore_read_what_was_written(
    sealed: Path, make_spec: MakeSpec, faults: dict[int, BlockReadError]
) -> None:
    """Every pixel and every metadata value comes back through both libraries, and they agree on every array."""
    spec = make_spec()
    group = zarr.open_group(str(sealed), mode="r", zarr_format=3, use_consolidated=False)
    arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
    for request in synthetic_requests(spec):
        if request.chip.unit in faults:
            continue
        chip = synthetic_chip(request.chip)
        assert np.array_equal(arrays["image"][request.index], chip.image)
        assert np.array_equal(arrays["fmask"][request.index], chip.fmask)
    rows = synthetic_rows(spec)
    for name in ("unit", "lon", "lat", "stratum"):
        assert np.array_equal(arrays[name], rows[name].to_numpy())
    for name, values in arrays.items():
        spec_of_array = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(sealed / name)}}
        assert np.array_equal(tensorstore.open(spec_of_array, open=True).result().read().result(), values)


def test_xarray_opens_the_store(sealed: Path) -> None:
    """All metadata and pixel arrays come as one dataset along `sample`, types unchanged."""
    data = xr.open_zarr(sealed, consolidated=False, zarr_format=3, chunks=None)
    assert data.sizes == {"sample": 21, "time": 2, "band": 6, "y": 16, "x": 16}
    assert (data.image.dtype, data.fmask.dtype, data.unit.dtype) == (np.int16, np.uint8, np.uint64)


def test_the_store_holds_exactly_the_arrays_of_the_contract(sealed: Path) -> None:
    """Arrays, types, chunks, codecs and fills are those of docs/store.md, without consolidated metadata."""
    root = json.loads((sealed / "zarr.json").read_text())
    assert "consolidated_metadata" not in root
    assert list(root["attributes"]["geofm"])[-1] == "complete"
    image = json.loads((sealed / "image" / "zarr.json").read_text())
    assert (image["data_type"], image["shape"], image["fill_value"]) == ("int16", [21, 2, 6, 16, 16], -9999)
    sharding = image["codecs"][0]["configuration"]
    assert sharding["chunk_shape"] == [1, 2, 6, 16, 16]
    assert [codec["name"] for codec in sharding["codecs"]] == ["bytes", "blosc", "crc32c"]
    assert sharding["codecs"][1]["configuration"] == {
        "typesize": 2,
        "cname": "zstd",
        "clevel": 1,
        "shuffle": "bitshuffle",
        "blocksize": 524288,
    }
    names = ("fmask", "lon", "lat", "date", "sensor", "stratum", "split", "unit")
    fills = [json.loads((sealed / name / "zarr.json").read_text())["fill_value"] for name in names]
    assert fills == [255, "NaN", "NaN", -1, -1, -1, -1, 2**64 - 1]


def test_a_permanent_fault_becomes_a_tombstone(
    sealed: Path, tmp_path: Path, make_spec: MakeSpec, faults: dict[int, BlockReadError]
) -> None:
    """An unreadable chip is all fill with split -1, its cause is in the summary, and a shard of them has no file."""
    group = zarr.open_group(str(sealed), mode="r", zarr_format=3, use_consolidated=False)
    split = np.asarray(group["split"])
    assert np.flatnonzero(split == -1).tolist() == [5, 8, 9, 10, 11]
    assert (np.asarray(group["image"][5]) == -9999).all()
    assert (np.asarray(group["fmask"][5]) == 255).all()
    assert not (sealed / "image" / "c.2.0.0.0.0").exists()
    summary = write_synthetic_store(tmp_path / "again", make_spec(), SyntheticReader(faults=faults))
    assert [stone.index for stone in summary.tombstones] == [5, 8, 9, 10, 11]
    assert (summary.tombstones[0].band, summary.tombstones[0].cause) == ("B04", "404 Not Found")
    assert (summary.valid_share[5] == 0).all()
    assert summary.splits.tolist() == split.tolist()


def test_statistics_are_exact_per_split_and_band(
    sealed: Path, make_spec: MakeSpec, faults: dict[int, BlockReadError]
) -> None:
    """The root holds Σ and Σ² over valid pixels as decimal strings, tombstones left out."""
    spec = make_spec()
    expected = {0: BandSums.zero(6), 1: BandSums.zero(6)}
    for request in synthetic_requests(spec):
        if request.chip.unit not in faults:
            chip = synthetic_chip(request.chip)
            expected[request.split] += chip_sums(chip.image, chip.fmask, spec.mask_rule)[1]
    found = json.loads((sealed / "zarr.json").read_text())["attributes"]["geofm"]["statistics"]
    for split, name in ((0, "train"), (1, "heldout")):
        assert found[name]["samples"] == str(expected[split].samples)
        for b, band in enumerate(spec.bands):
            sums = found[name]["bands"][band]
            assert sums["sum_of_squares"] == str(expected[split].squares[b])
            assert sums["sum"] == str(expected[split].total[b])
            assert sums["count"] == str(expected[split].count[b])


@pytest.mark.parametrize("profile", ["zstd", "local"])
def test_both_profiles_hold_the_same_pixels(tmp_path: Path, make_spec: MakeSpec, profile: str) -> None:
    """The profile decides codec and size, never content."""
    spec = make_spec(profile=profile)
    write_synthetic_store(tmp_path, spec, SyntheticReader(), threads=2)
    image = zarr.open_array(tmp_path / "store.zarr" / "image", mode="r")
    assert np.array_equal(image[7], synthetic_chip(synthetic_requests(spec)[7].chip).image)


def test_nothing_is_left_beside_or_inside_the_store(tmp_path: Path, make_spec: MakeSpec) -> None:
    """After the run there are store and parts: no temporary or stray file anywhere."""
    write_synthetic_store(tmp_path, make_spec(), SyntheticReader())
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    beside = {name for name in files if not name.startswith("store.zarr/")}
    assert beside == {f"parts/group-{group:06d}.json" for group in range(3)}
    inside = {name.rpartition("/")[2] for name in files - beside}
    assert all(name == "zarr.json" or name.startswith("c.") for name in inside)


def test_sealing_needs_every_group(tmp_path: Path, make_spec: MakeSpec) -> None:
    """A store with groups missing is not sealed; the message says which."""
    spec, path = make_spec(), tmp_path / "store.zarr"
    create(path, spec)
    requests = synthetic_requests(spec)[:8]
    write_group(path, spec, tmp_path / "parts", 0, requests, SyntheticReader())
    with pytest.raises(OutputConflictError, match=r"groups \[1, 2\] of 3"):
        finalise(path, spec, tmp_path / "parts", synthetic_rows(spec))


def test_a_group_takes_exactly_its_rows(tmp_path: Path, make_spec: MakeSpec) -> None:
    """Wrong rows, dates or splits are our own mistakes and stop at once."""
    spec, path = make_spec(), tmp_path / "store.zarr"
    create(path, spec)
    requests = synthetic_requests(spec)

    def write(rows: list[RowRequest]) -> None:
        write_group(path, spec, tmp_path / "parts", 1, rows, SyntheticReader())

    with pytest.raises(AssertionError, match="group 1 holds exactly rows"):
        write(requests[:8])
    with pytest.raises(AssertionError, match="split 7"):
        write([RowRequest(index=r.index, chip=r.chip, split=7) for r in requests[8:16]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"n": 0}, "at least 1"), ({"profile": "gzip"}, "profile"), ({"height": 4096, "width": 4096}, "limits")],
)
def test_impossible_specs_are_refused(make_spec: MakeSpec, changes: dict[str, object], message: str) -> None:
    """A spec is checked where it is made."""
    with pytest.raises(InputError, match=message):
        make_spec(**changes)


def test_every_field_is_in_the_digest(make_spec: MakeSpec) -> None:
    """Two specs that differ in anything have different digests; the order of provenance does not count."""
    base = make_spec()
    changes: list[dict[str, object]] = [{"n": 22}, {"seed": 2}, {"profile": "local"}, {"min_clear": 0.7}, {"wave": 2}]
    digests = {make_spec(**change).digest for change in changes} | {base.digest}
    assert len(digests) == 6
    assert make_spec(provenance={"response_digest": "bb", "plan_digest": "aa"}).digest == base.digest
