"""Promises of the COG header parser."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from geofm_pipeline.cog.blocks import BlockError, check_codec, decode_block
from geofm_pipeline.cog.header import CogHeader, HeaderError, read_header
from geofm_pipeline.scenes import SceneRef


class Recorded:
    """A file in memory that counts its reads."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        self.reads.append((start, length))
        return self.data[start : start + length]


def tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    """A TIFF written by GDAL."""
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype.name,
        "transform": rasterio.Affine(30, 0, 600_000, 0, -30, 4_000_020),
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "compress": "deflate",
        **options,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(pixels, 1)
        return bytes(memory.read())


def decode_all(data: bytes, header: CogHeader) -> NDArray[np.generic]:
    rows, cols = header.offsets.shape
    size_y, size_x = header.block_height, header.block_width
    image = np.full((rows * size_y, cols * size_x), header.nodata or 0, dtype=header.dtype)
    for row, col in np.ndindex(rows, cols):
        start, length = header.span(row, col)
        if length:
            out = image[row * size_y : (row + 1) * size_y, col * size_x : (col + 1) * size_x]
            decode_block(data[start : start + length], header, out)
    return image[: header.height, : header.width]


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    dtype=st.sampled_from([np.int16, np.uint8, np.uint16, np.int32]),
    predictor=st.sampled_from([1, 2]),
    block=st.tuples(st.sampled_from([16, 64, 256]), st.sampled_from([16, 128])),
    big=st.booleans(),
    first_read=st.sampled_from([16, 300, 16_384]),
    seed=st.integers(0, 99),
)
def test_any_tiled_deflate_tiff_decodes_as_rasterio_does(
    shape: tuple[int, int],
    dtype: type[np.generic],
    predictor: int,
    block: tuple[int, int],
    big: bool,
    first_read: int,
    seed: int,
) -> None:
    """Size, type, predictor, block shape, BigTIFF, sparse blocks and the length of the first read do not matter."""
    pixels = np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)
    pixels[: shape[0] // 2] = 77
    data = tiff(
        pixels,
        predictor=predictor,
        blockysize=block[0],
        blockxsize=block[1],
        nodata=77,
        SPARSE_OK="TRUE",
        BIGTIFF="YES" if big else "NO",
    )
    header = read_header(Recorded(data), first_read=first_read)
    check_codec(header)
    assert (header.height, header.width, header.predictor, header.nodata) == (*shape, predictor, 77)
    assert (header.origin, header.pixel_scale) == ((600_000, 4_000_020), (30, 30))
    np.testing.assert_array_equal(decode_all(data, header), pixels)


def test_one_read_of_16_kb_opens_an_hls_file(scenes: tuple[SceneRef, ...], shared_data: Path) -> None:
    """The synthetic files and every real one are open after one read."""
    real = sorted((shared_data / "hls-archive").rglob("*.tif")) + sorted((shared_data / "fmask").rglob("*.tif"))
    assert len(real) == 16
    for path in [Path(scenes[0].fmask), Path(scenes[0].bands[0]), *real]:
        file = Recorded(path.read_bytes())
        header = read_header(file)
        assert file.reads == [(0, 16_384)]
        assert (header.height, header.width, header.block_height) == (3660, 3660, 256)


def test_tables_beyond_the_first_read_are_read_and_nothing_else() -> None:
    """A header that is larger than the first read costs one read per missing part."""
    data = tiff(np.arange(10_000, dtype=np.int16).reshape(100, 100))
    file = Recorded(data)
    read_header(file, first_read=16)
    assert file.reads[0] == (0, 16)
    assert sum(length for _, length in file.reads[1:]) < 500


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty file"),
        (b"\n <!DOCTYPE html><html></html>", "an HTML page, not a TIFF"),
        (b"<?xml version='1.0'?><Error/>", "an HTML page, not a TIFF"),
        (b"MM\0*" + bytes(100), "big-endian"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a TIFF: it starts with b'\\x89PNG"),
        (b"II", "truncated"),
        (b"II*\0", "truncated"),
        (b"II+\0\x04\0\0\0" + bytes(100), "damaged: a BigTIFF"),
        (b"II*\0\x08\0\0\0\0\0" + bytes(100), "damaged: its first directory claims 0 tags"),
        (b"II*\0\xff\xff\xff\x7f" + bytes(100), "truncated: its header needs bytes 2147483647"),
    ],
)
def test_what_is_no_cog_is_named(data: bytes, cause: str) -> None:
    """The error says what the file is instead."""
    with pytest.raises(HeaderError) as caught:
        read_header(Recorded(data))
    assert cause in str(caught.value)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"tiled": False}, "not a tiled raster"),
        ({"compress": "lzw"}, "TIFF compression 5 is not supported"),
        ({"compress": "none"}, "TIFF compression 1 is not supported"),
        ({"dtype": "float32", "predictor": 3}, "TIFF predictor 3"),
        ({"dtype": "float32"}, "pixels of type float32"),
        ({"ENDIANNESS": "BIG"}, "big-endian"),
    ],
)
def test_codings_that_hls_never_has_are_refused(options: dict[str, object], cause: str) -> None:
    """An unknown coding is an error with its value, never a guess."""
    dtype = np.dtype(str(options.get("dtype", "int16")))
    with pytest.raises(ValueError, match=r"TIFF|pixels") as caught:
        check_codec(read_header(Recorded(tiff(np.ones((70, 70), dtype=dtype), **options))))
    assert cause in str(caught.value)


def test_every_truncation_of_the_header_is_found(scenes: tuple[SceneRef, ...]) -> None:
    """A file cut anywhere in its header raises a HeaderError, never another error."""
    data = Path(scenes[0].fmask).read_bytes()
    full = read_header(Recorded(data))
    last = int(full.offsets[full.offsets > 0].min())
    for length in [*range(0, 400, 7), *range(400, last, 97)]:
        try:
            header = read_header(Recorded(data[:length]))
        except HeaderError:
            continue
        assert np.array_equal(header.offsets, full.offsets)
        assert np.array_equal(header.counts, full.counts)


@settings(max_examples=400)
@given(flips=st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_in_the_header_is_a_named_error(scenes: tuple[SceneRef, ...], flips: list[tuple[int, int]]) -> None:
    """Overwritten bytes give a header or one of our errors, and never a read beyond what a file can have."""
    data = bytearray(Path(scenes[0].bands[0]).read_bytes()[:16_384])
    for at, value in flips:
        data[at] = value
    file = Recorded(bytes(data))
    with contextlib.suppress(HeaderError, BlockError):
        check_codec(read_header(file))
    assert all(start + length <= 2**40 and length <= 2**24 for start, length in file.reads)


def test_a_block_with_a_length_but_no_offset_is_damage(cog_writer: Callable[..., None], tmp_path: Path) -> None:
    """Half an entry in the block tables is never taken for a block that is not stored."""
    cog_writer(tmp_path / "x.tif", np.ones((300, 300), dtype=np.int16))
    data = bytearray((tmp_path / "x.tif").read_bytes())
    header = read_header(Recorded(bytes(data)))
    at = bytes(data).index(struct.pack("<4I", *map(int, header.offsets.ravel())))
    data[at : at + 4] = bytes(4)
    with pytest.raises(HeaderError, match="a length without an offset"):
        read_header(Recorded(bytes(data)))
