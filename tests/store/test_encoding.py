"""Chunks, shards and metadata arrays are byte for byte what zarr-python writes, and others read them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from geofm_pipeline.store import StoreSpec
from geofm_pipeline.store.codec import RESIDUE, ChunkEncoder, crc32c, decode_index, encode_index, index_size, prepare
from geofm_pipeline.store.finalise import _chunks
from geofm_pipeline.store.layout import (
    NO_CHUNK,
    ROOT,
    ArrayLayout,
    dumps,
    fmask_layout,
    image_layout,
    manifest_layouts,
    row_layouts,
)
from geofm_pipeline.store.shards import GroupShards

_shapes = st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


@st.composite
def _stores(draw: st.DrawFn) -> tuple[StoreSpec, NDArray[np.int16], NDArray[np.uint8]]:
    n, t, b, h, w = draw(_shapes)
    profile: Literal["zstd", "local"] = draw(st.sampled_from(["zstd", "local"]))
    spec = StoreSpec(
        n=n,
        timesteps=t,
        height=h,
        width=w,
        bands=("blue", "green", "red")[:b],
        seed=0,
        shard_size=draw(st.integers(1, 4)),
        group_shards=100,
        profile=profile,
    )
    image = draw(hnp.arrays(np.int16, (n, t, b, h, w), elements=st.integers(-32768, 32767), fill=st.just(-9999)))
    fmask = draw(hnp.arrays(np.uint8, (n, t, h, w), elements=st.integers(0, 255), fill=st.just(255)))
    for row in draw(st.sets(st.integers(0, n - 1))):
        image[row], fmask[row] = -9999, 255
    return spec, image, fmask


def _by_us(
    folder: Path, spec: StoreSpec, image: NDArray[np.int16], fmask: NDArray[np.uint8], order: Sequence[int]
) -> None:
    for layout in (image_layout(spec), fmask_layout(spec)):
        (folder / layout.path).mkdir(parents=True)
        (folder / layout.path / ROOT).write_bytes(dumps(layout.document()))
    temp = folder.with_name("temp")
    temp.mkdir()
    with GroupShards(folder, temp, spec, 0) as shards:
        encoders = {name: ChunkEncoder(layout) for name, layout in shards.layouts.items()}
        for row in order:
            shards.append("image", row, encoders["image"].encode(image[row]))
            shards.append("fmask", row, encoders["fmask"].encode(fmask[row]))
        shards.complete(1)
        shards.place()
    temp.rmdir()


def _by_zarr_python(folder: Path, layout: ArrayLayout, values: NDArray[np.generic]) -> None:
    (folder / layout.path).mkdir(parents=True)
    (folder / layout.path / ROOT).write_bytes(dumps(layout.document()))
    zarr.open_array(folder / layout.path, mode="r+", zarr_format=3)[...] = values


def _files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("c.*")}


@given(_stores())
def test_shards_equal_zarr_pythons_byte_for_byte(store: tuple[StoreSpec, NDArray[np.int16], NDArray[np.uint8]]) -> None:
    """Chunks appended in row order give the very files zarr-python writes, all-fill chunks and shards left out."""
    spec, image, fmask = store
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
        _by_us(ours, spec, image, fmask, range(spec.n))
        _by_zarr_python(theirs, image_layout(spec), image)
        _by_zarr_python(theirs, fmask_layout(spec), fmask)
        assert _files(ours) == _files(theirs)
        for name, values in (("image", image), ("fmask", fmask)):
            assert np.array_equal(_tensorstore(ours / name), values)


@given(_stores(), st.randoms())
def test_shards_in_any_order_hold_zarr_pythons_chunks(
    store: tuple[StoreSpec, NDArray[np.int16], NDArray[np.uint8]], random: Random
) -> None:
    """Appended in another order, each row still has the chunk zarr-python writes for it, without gaps between them,
    and both libraries read the pixels back."""
    spec, image, fmask = store
    prepare()
    order = random.sample(range(spec.n), spec.n)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
        _by_us(ours, spec, image, fmask, order)
        for layout, values in ((image_layout(spec), image), (fmask_layout(spec), fmask)):
            _by_zarr_python(theirs, layout, values)
            assert np.array_equal(_tensorstore(ours / layout.path), values)
            assert np.array_equal(np.asarray(zarr.open_array(ours / layout.path, mode="r")[...]), values)
        mine, others = _files(ours), _files(theirs)
        assert mine.keys() == others.keys()
        for name, data in mine.items():
            assert len(data) == len(others[name])
            assert _chunks_of(data, spec.shard_size) == _chunks_of(others[name], spec.shard_size)


def _chunks_of(shard: bytes, shard_size: int) -> list[bytes | None]:
    """The stored bytes of each row of a shard, by its index."""
    index = decode_index(shard[-index_size(shard_size) :], shard_size)
    assert index is not None
    places = [(int(offset), int(length)) for offset, length in index]
    return [None if offset == NO_CHUNK else shard[offset : offset + length] for offset, length in places]


@given(n=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_metadata_arrays_equal_zarr_pythons(n: int, seed: int) -> None:
    """Metadata and manifest arrays too are the files zarr-python writes, and read back through both libraries."""
    prepare()
    spec = StoreSpec(n=n, timesteps=3, height=4, width=4, seed=0)
    rng = np.random.default_rng(seed)
    for layout in (*row_layouts(spec), *manifest_layouts(spec)):
        values = rng.integers(0, 100, layout.shape).astype(layout.dtype)
        values[rng.random(layout.shape) < 0.5] = layout.fill
        ours = dict(_chunks(layout, values))
        with tempfile.TemporaryDirectory() as folder:
            _by_zarr_python(Path(folder), layout, values)
            assert ours == _files(Path(folder)), layout.path


def _tensorstore(folder: Path) -> NDArray[np.generic]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    values: NDArray[np.generic] = tensorstore.open(spec, open=True, read=True).result().read().result()
    return values


@given(hnp.arrays(np.uint64, st.tuples(st.integers(1, 70), st.just(2))))
def test_an_index_survives_and_any_change_shows(places: NDArray[np.uint64]) -> None:
    """A shard's index decodes to what was encoded; any flipped bit or lost byte gives None."""
    data = encode_index(places)
    decoded = decode_index(data, len(places))
    assert decoded is not None
    assert np.array_equal(decoded, places)
    middle = len(data) // 2
    assert decode_index(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :], len(places)) is None
    assert decode_index(data[1:], len(places)) is None


@given(st.binary(max_size=99))
def test_bytes_with_their_checksum_have_one_residue(data: bytes) -> None:
    """The checksum of bytes followed by their own checksum is a constant, so one call checks a chunk."""
    assert crc32c(data + crc32c(data).to_bytes(4, "little")) == RESIDUE


@pytest.mark.parametrize("variable", ["BLOSC_CLEVEL", "BLOSC_COMPRESSOR", "BLOSC_SHUFFLE", "BLOSC_NTHREADS"])
def test_blosc_variables_of_the_environment_do_not_reach_the_bytes(
    monkeypatch: pytest.MonkeyPatch, variable: str, make_spec: Callable[..., StoreSpec]
) -> None:
    """`BLOSC_*` variables, which override codec parameters silently, are cleared before anything is encoded."""
    values = np.arange(4 * 6 * 64 * 64, dtype=np.int16).reshape(4, 6, 64, 64)
    encoder = ChunkEncoder(image_layout(make_spec()))
    prepare()
    expected = encoder.encode(values)
    monkeypatch.setenv(variable, "zlib" if variable == "BLOSC_COMPRESSOR" else "9")
    prepare()
    assert encoder.encode(values) == expected
