"""The COG writer against GDAL and against files that NASA wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_pipeline.hls.grid import tile_grid
from geofm_pipeline.simulator import Archive
from geofm_pipeline.simulator.cog import OVERVIEWS, Patch, encode_cog, overview_samples

GRID = tile_grid("32TNS")
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 12: 8}


def directories(data: bytes) -> list[dict[int, tuple[int, int, int]]]:
    """TIFF directories as tag → (type, count, value or offset)."""
    out, position = [], struct.unpack("<I", data[4:8])[0]
    while position:
        (number,) = struct.unpack_from("<H", data, position)
        records = [struct.unpack_from("<HHII", data, position + 2 + 12 * i) for i in range(number)]
        out.append({code: (kind, count, value) for code, kind, count, value in records})
        (position,) = struct.unpack_from("<I", data, position + 2 + 12 * number)
    return out


def header_end(data: bytes) -> int:
    """First byte behind all directories and their long values."""
    ends = [
        value + _SIZES[kind] * count
        for directory in directories(data)
        for kind, count, value in directory.values()
        if _SIZES[kind] * count > 4
    ]
    return max(ends)


def image(patch: Patch, fill: int) -> NDArray[np.generic]:
    """The whole tile that a patch stands for."""
    whole = np.full((3660, 3660), fill, dtype=patch.pixels.dtype)
    height, width = patch.pixels.shape
    whole[patch.row : patch.row + height, patch.col : patch.col + width] = patch.pixels
    return whole


@settings(max_examples=5)
@given(
    row=st.integers(0, 3400),
    col=st.integers(0, 3400),
    height=st.integers(1, 260),
    width=st.integers(1, 260),
    dtype=st.sampled_from(["int16", "uint8"]),
)
def test_rasterio_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, height: int, width: int, dtype: str
) -> None:
    """Any patch anywhere in a tile, of either type, comes back in full resolution and in every overview."""
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(row).integers(info.min, info.max, (height, width), dtype=dtype, endpoint=True)
    patch, fill = Patch(row=row, col=col, pixels=pixels), -9999 if dtype == "int16" else 255
    path = tmp_path_factory.mktemp("cog") / "x.tif"
    path.write_bytes(encode_cog(patch, grid=GRID, fill=fill, tags={"a<b": "c&d"}, scale=1e-4))
    whole = image(patch, fill)
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(source.read(1), whole)
        assert source.tags()["a<b"] == "c&d"
        assert (source.scales, source.offsets) == ((1e-4,), (0.0,))
    for level, factor in enumerate(OVERVIEWS):
        with rasterio.open(path, OVERVIEW_LEVEL=level) as source:
            picked = overview_samples(factor)
            np.testing.assert_array_equal(source.read(1), whole[np.ix_(picked, picked)])


def test_overviews_are_those_of_nasa(shared_data: Path, tmp_path: Path) -> None:
    """Re-encoding a real Fmask gives all four of its overviews bit for bit, block sizes and nodata included."""
    real = shared_data / "fmask" / "HLS.L30.T15UXP.2024283T165135.v2.0.Fmask.tif"
    with rasterio.open(real) as source:
        pixels, tags = source.read(1), source.tags()
    ours = tmp_path / "ours.tif"
    grid = tile_grid("15UXP")
    ours.write_bytes(encode_cog(Patch(row=0, col=0, pixels=pixels), grid=grid, fill=255, tags=tags, scale=None))
    for level in (None, 0, 1, 2, 3):
        extra = {} if level is None else {"OVERVIEW_LEVEL": level}
        with rasterio.open(real, **extra) as theirs, rasterio.open(ours, **extra) as mine:
            np.testing.assert_array_equal(mine.read(1), theirs.read(1))
            assert mine.profile == theirs.profile
            assert mine.block_shapes == theirs.block_shapes


def test_directories_are_those_of_nasa(shared_data: Path, tiny_archive: Archive) -> None:
    """A simulated Fmask has the same directories in the same order with the same tags, types and counts as a real
    one; only texts and the tile's numbers differ."""
    real = directories((shared_data / "fmask" / "HLS.L30.T15UXP.2024283T165135.v2.0.Fmask.tif").read_bytes())
    ours = directories(next(tiny_archive.root.glob("HLS.L30*/*Fmask.tif")).read_bytes())
    texts = {42112, 34737}  # metadata, names of the reference system
    places = {324, 325, 273, 279, 33550, 33922, 34735, 34737, 42112, 42113}  # values that are offsets
    assert len(ours) == len(real) == 5
    for mine, theirs in zip(ours, real, strict=True):
        assert list(mine) == list(theirs)
        for code, (kind, count, value) in theirs.items():
            assert mine[code][0] == kind, code
            assert code in texts or mine[code][1] == count, code
            assert code in places or mine[code][2] == value, code


def test_a_band_file_opens_like_the_real_ones(shared_data: Path, tiny_archive: Archive) -> None:
    """Profile, scale, offset and overviews of a simulated red band equal a real granule's but for the place."""
    real = next((shared_data / "hls-archive").glob("*T10SFE*/*B04.tif"))
    for ours in tiny_archive.root.glob("HLS.*/*B04.tif"):
        with rasterio.open(real) as theirs, rasterio.open(ours) as mine:
            skip = ("crs", "transform")
            assert {k: v for k, v in mine.profile.items() if k not in skip} == {
                k: v for k, v in theirs.profile.items() if k not in skip
            }
            assert (mine.scales, mine.offsets, mine.overviews(1)) == (
                theirs.scales,
                theirs.offsets,
                theirs.overviews(1),
            )


def test_one_read_opens_a_file(tiny_archive: Archive) -> None:
    """Every header ends before byte 8,100, every block lies behind it, none is sparse, and the blocks fill the file."""
    for path in tiny_archive.root.glob("HLS.*/*.tif"):
        data = path.read_bytes()
        end = header_end(data)
        assert end < 8_100
        total = 0
        for directory in directories(data):
            (_, count, offsets), (_, _, sizes) = directory[324], directory[325]
            places = struct.unpack_from(f"<{count}I", data, offsets)
            lengths = struct.unpack_from(f"<{count}I", data, sizes)
            assert min(places) >= end
            assert min(lengths) > 0
            total += sum(lengths)
        assert end <= len(data) - total <= end + 1


def test_the_reference_system_is_utm_north(tiny_archive: Archive) -> None:
    """Files lie on the closed form's grid in EPSG:326zz."""
    for tile in tiny_archive.spec.tiles:
        grid = tile_grid(tile)
        with rasterio.open(next(tiny_archive.root.glob(f"*T{tile}*/*B02.tif"))) as source:
            assert source.crs.to_epsg() == grid.epsg
            assert tuple(source.transform)[:6] == grid.transform
