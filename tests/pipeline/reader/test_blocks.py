"""Promises of the block decoder."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_pipeline.cog.blocks import BlockError, decode_block
from geofm_pipeline.cog.header import CogHeader

EDGE = 64


def header_for(dtype: str, predictor: int) -> CogHeader:
    return CogHeader(
        width=EDGE,
        height=EDGE,
        block_width=EDGE,
        block_height=EDGE,
        dtype=np.dtype(dtype),
        compression=8,
        predictor=predictor,
        nodata=None,
        pixel_scale=None,
        origin=None,
        offsets=np.ones((1, 1), dtype=np.uint64),
        counts=np.ones((1, 1), dtype=np.uint64),
    )


def encode(pixels: NDArray[np.generic], predictor: int) -> bytes:
    """TIFF's horizontal differencing in plain numpy."""
    raw = pixels.copy()
    if predictor == 2:
        raw[:, 1:] = pixels[:, 1:] - pixels[:, :-1]
    return zlib.compress(raw.tobytes())


@settings(max_examples=30)
@given(dtype=st.sampled_from(["<i2", "<u1"]), predictor=st.sampled_from([1, 2]), seed=st.integers(0, 2**32 - 1))
def test_decoding_undoes_encoding(dtype: str, predictor: int, seed: int) -> None:
    """Any pixels come back bit for bit, overflowing differences included, into a view with any row stride."""
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(seed).integers(info.min, info.max + 1, (EDGE, EDGE)).astype(dtype)
    slab = np.zeros((EDGE + 3, EDGE + 9), dtype=dtype)
    decode_block(encode(pixels, predictor), header_for(dtype, predictor), slab[2:-1, 4:-5])
    np.testing.assert_array_equal(slab[2:-1, 4:-5], pixels)
    assert not slab[:, :4].any()
    assert not slab[:2].any()


@settings(max_examples=200)
@given(at=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_other_pixels(at: int, bit: int) -> None:
    """Any one flipped bit of the stream is an error or harmless."""
    pixels = np.random.default_rng(1).integers(0, 50, (EDGE, EDGE)).astype("<i2")
    data = bytearray(encode(pixels, 2))
    data[at % len(data)] ^= 1 << bit
    out = np.empty_like(pixels)
    try:
        decode_block(bytes(data), header_for("<i2", 2), out)
    except BlockError:
        return
    np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("rows", [EDGE - 1, EDGE + 1])
def test_a_block_of_another_size_is_an_error(rows: int) -> None:
    """A valid stream of fewer or more bytes than a block has is refused, and its Adler-32 does not help it."""
    pixels = np.ones((rows, EDGE), dtype="<i2")
    with pytest.raises(BlockError, match=r"must have 8192|corrupt"):
        decode_block(encode(pixels, 1), header_for("<i2", 1), np.empty((EDGE, EDGE), "<i2"))


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", bytes(100)])
def test_what_is_no_zlib_stream_is_an_error(data: bytes) -> None:
    """Empty, HTML and zero bytes are refused."""
    with pytest.raises(BlockError, match="corrupt"):
        decode_block(data, replace(header_for("<i2", 1)), np.empty((EDGE, EDGE), "<i2"))
