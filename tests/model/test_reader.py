"""The strict reader: gives what was written or an error that names file and sample, never anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from geofm_model import PixelRule, Store, StoreError, TombstoneError

GOLDEN = Path(__file__).parents[1] / "golden" / "store.zarr"
IMAGE_0 = "image/c.0.0.0.0.0"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy of the golden store, to damage."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "store.zarr"))


def test_a_sample_has_everything_a_model_needs() -> None:
    """Shapes, types, place and time of a sample, owned by the caller."""
    sample = Store.open(GOLDEN).sample(4)
    assert (sample.image.shape, sample.image.dtype) == ((2, 6, 32, 32), np.int16)
    assert (sample.fmask.shape, sample.fmask.dtype) == ((2, 32, 32), np.uint8)
    assert (sample.lon, sample.lat) == (-122.0 + 0.04, 37.0 + 0.02)
    assert (sample.date.dtype, sample.sensor.tolist(), sample.split) == (np.int32, [0, 1], 0)
    assert sample.date[1] - sample.date[0] == 16
    sample.image[:] = 0


def test_samples_equal_zarr_python() -> None:
    """Every sample and every column is what zarr-python reads."""
    store = Store.open(GOLDEN)
    group = zarr.open_group(str(GOLDEN), mode="r", zarr_format=3, use_consolidated=False)
    assert len(store) == 10
    for index in store.readable.tolist():
        sample = store.sample(index)
        assert np.array_equal(sample.image, group["image"][index])
        assert np.array_equal(sample.fmask, group["fmask"][index])
    for name in ("lon", "lat", "date", "sensor", "stratum", "split", "unit"):
        assert np.array_equal(store.column(name), group[name][...])


def test_the_valid_rule_is_the_stores_own() -> None:
    """Valid pixels follow the rule in the attributes, or another rule on request, and agree with the statistics."""
    store = Store.open(GOLDEN)
    assert store.rule == PixelRule(fill=-9999, fmask_fill=255, byte=14)
    samples = [store.sample(index) for index in store.readable.tolist()]
    for split, code in (("train", 0), ("heldout", 1)):
        mine = [sample for sample in samples if sample.split == code]
        values = np.concatenate([sample.image[:, 2][sample.valid()] for sample in mine]).astype(object)
        red = store.statistics[split]["red"]
        assert (red.count, red.sum, red.sum_of_squares) == (len(values), values.sum(), (values * values).sum())
        assert red.mean == pytest.approx(float(values.mean()))
        assert red.std == pytest.approx(float(values.astype(float).std()))
    swath = store.sample(3)
    assert not swath.valid()[1, :, 20:].any()
    everything = PixelRule(fill=-9999, fmask_fill=255, byte=0)
    assert swath.valid(everything).sum() > swath.valid().sum()


def test_tombstones_raise() -> None:
    """A tombstone has no pixels: reading it is an error that names the unit; `readable` leaves it out."""
    store = Store.open(GOLDEN)
    assert store.readable.tolist() == [0, 1, 2, 3, 4, 6, 7]
    with pytest.raises(TombstoneError, match=r"sample 5 \(unit \d+\).*readable"):
        store.sample(5)
    for index in (-1, 10):
        with pytest.raises(IndexError, match="0 to 9"):
            store.sample(index)
    with pytest.raises(StoreError, match="choose one of lon"):
        store.column("colour")


def test_a_flipped_byte_never_gives_wrong_pixels(store: Path) -> None:
    """Whatever byte of a shard is flipped, a sample is as written or an error that names it."""
    reader = Store.open(store)
    truth = [reader.sample(index) for index in range(4)]
    for name in (IMAGE_0, "fmask/c.0.0.0.0"):
        data = (store / name).read_bytes()
        for position in range(0, len(data), 211 if name == IMAGE_0 else 7):
            changed = bytearray(data)
            changed[position] ^= 0x10
            (store / name).write_bytes(changed)
            for index in range(4):
                _same_or_error(reader, index, truth[index].image, truth[index].fmask)
        (store / name).write_bytes(data)


def _same_or_error(
    reader: Store,
    index: int,
    image: np.ndarray[tuple[int, ...], np.dtype[np.int16]],
    fmask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    try:
        sample = reader.sample(index)
    except StoreError as error:
        assert f"sample {index} " in str(error)  # noqa: PT017 - either outcome is right, silence is not
    else:
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.fmask, fmask)


def test_every_changed_metadata_file_is_refused(store: Path) -> None:
    """A flipped bit in any document or metadata chunk stops the store from opening."""
    for file in sorted(f for f in store.rglob("*") if f.is_file() and f.parent.name not in ("image", "fmask")):
        data = file.read_bytes()
        for position in (0, len(data) // 3, len(data) // 2, len(data) - 1):
            changed = bytearray(data)
            changed[position] ^= 1
            file.write_bytes(changed)
            with pytest.raises(StoreError):
                Store.open(store)
        file.write_bytes(data)
    Store.open(store)


def test_a_missing_or_short_shard_is_named(store: Path) -> None:
    """At open the sizes of all shards are compared; a shard lost afterwards is an error at its samples."""
    reader, shard = Store.open(store), store / IMAGE_0
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match=r"c\.0\.0\.0\.0\.0 has \d+ bytes instead of \d+.*samples 0–3"):
        Store.open(store)
    with pytest.raises(StoreError, match=r"sample 3 cannot be read: .* ends early"):
        reader.sample(3)
    shard.unlink()
    with pytest.raises(StoreError, match=r"it is missing.*samples 0–3"):
        Store.open(store)
    with pytest.raises(StoreError, match=r"sample 0 cannot be read: shard .* is missing"):
        reader.sample(0)


def test_swapped_shards_are_refused(store: Path) -> None:
    """A shard in another's place gives errors, not the other's pixels."""
    one, two = store / IMAGE_0, store / "image/c.1.0.0.0.0"
    reader = Store.open(store)
    one_data = one.read_bytes()
    one.write_bytes(two.read_bytes() + b"\0" * len(one_data))
    for index in (1, 2, 3):
        with pytest.raises(StoreError, match=f"sample {index} "):
            reader.sample(index)


def _edit(store: Path, change: Callable[[dict[str, object]], None]) -> None:
    document = json.loads((store / "zarr.json").read_text())
    change(document["attributes"]["geofm"])
    (store / "zarr.json").write_text(json.dumps(document))


def test_what_is_no_sealed_store_of_this_schema_is_refused(store: Path, tmp_path: Path) -> None:
    """A newer schema, an unsealed store, a changed root and a folder without a store each say what they are."""
    with pytest.raises(StoreError, match="does not exist"):
        Store.open(tmp_path / "nowhere")
    zarr.open_group(str(tmp_path / "other"), mode="w", zarr_format=3)
    with pytest.raises(StoreError, match="not a geofm store"):
        Store.open(tmp_path / "other")
    _edit(store, lambda attributes: attributes.update(seed=8))
    with pytest.raises(StoreError, match="its own digest"):
        Store.open(store)
    _edit(store, lambda attributes: attributes.update(complete=False))
    with pytest.raises(StoreError, match="not sealed"):
        Store.open(store)
    _edit(store, lambda attributes: attributes.update(schema_version=2))
    with pytest.raises(StoreError, match="schema 2"):
        Store.open(store)
