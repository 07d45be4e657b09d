"""Land-cover fractions equal counting pixels by hand, in any reference system, format and tiling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray
from pyproj import Transformer
from servers.loopback import App, Request, ranged, serving
from servers.loopback import Reply as Served

from geofm_pipeline.cells import owned_cells
from geofm_pipeline.covariates import land_cover_fractions
from geofm_pipeline.errors import ArchiveError, InputError
from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_pipeline.raster import RasterLevel, write_cog
from geofm_pipeline.region import parse_region

TILE = "32UNU"
EARTH = parse_region("-180,-84,180,84")


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """The 196 cells of one tile near 9-10° E, 48° N."""
    return owned_cells([TILE], EARTH, chip_size=256).table


def _patches(shape: tuple[int, int], edge: int, classes: tuple[int, ...] = (10, 30, 40, 80)) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    coarse = rng.choice(np.array(classes, dtype=np.uint8), (shape[0] // edge + 1, shape[1] // edge + 1))
    return np.kron(coarse, np.ones((edge, edge), dtype=np.uint8))[: shape[0], : shape[1]]


def _write(
    path: Path, pixels: NDArray[Any], *, west: float, north: float, step: float, epsg: int = 4326, **options: Any
) -> str:
    write_cog(path, pixels, epsg=epsg, transform=(step, 0, west, 0, -step, north), **options)
    return str(path)


def _by_hand(
    cells: pa.Table, pixels: NDArray[Any], west: float, north: float, step: float, epsg: int
) -> dict[int, Any]:
    """Fractions from 64 × 64 exactly projected points per cell."""
    grid = tile_grid(TILE)
    at = (np.arange(64) + 0.5) / 64 * 256
    codes, transformer = [], Transformer.from_crs(4326, epsg, always_xy=True)
    for row, col in zip(cells["cell_row"].to_pylist(), cells["cell_col"].to_pylist(), strict=True):
        r, c = np.meshgrid(row * 256 + at, col * 256 + at, indexing="ij")
        lon, lat = unproject(grid.zone, *grid.xy(r, c))
        x, y = transformer.transform(lon, lat)
        i, j = np.floor((north - y) / step).astype(int), np.floor((x - west) / step).astype(int)
        inside = (i >= 0) & (j >= 0) & (i < pixels.shape[0]) & (j < pixels.shape[1])
        codes.append(np.where(inside, pixels[i.clip(0, pixels.shape[0] - 1), j.clip(0, pixels.shape[1] - 1)], 0))
    stack = np.stack(codes)
    return {int(k): (stack == k).mean(axis=(1, 2)) for k in np.unique(stack) if k}


def _shares(table: pa.Table) -> dict[int, NDArray[np.float32]]:
    return {int(n[3:]): np.asarray(table[n]) for n in table.column_names if n.startswith("lc_")}


GRIDS = {
    "degrees": (8.5, 49.0, 0.004, 4326, (400, 600)),
    "web mercator": (950_000.0, 6_300_000.0, 400.0, 3857, (600, 700)),
    "equal area": (4_200_000.0, 2_900_000.0, 300.0, 3035, (700, 900)),
    "another zone": (-10_000.0, 5_420_000.0, 300.0, 32633, (600, 700)),
}


@pytest.mark.parametrize("name", list(GRIDS))
def test_fractions_equal_the_count_by_hand_in_any_reference_system(cells: pa.Table, tmp_path: Path, name: str) -> None:
    """Degrees, Mercator, equal area and a foreign UTM zone agree with exactly projected points to 5 %."""
    west, north, step, epsg, shape = GRIDS[name]
    pixels = _patches(shape, 8)
    source = _write(tmp_path / "map.tif", pixels, west=west, north=north, step=step, epsg=epsg)
    found = land_cover_fractions(cells, source)
    wanted = _by_hand(cells, pixels, west, north, step, epsg)
    assert found.note == ""
    shares = _shares(found.table)
    assert set(shares) == set(wanted)
    for code, share in shares.items():
        assert share.dtype == np.float32
        assert np.abs(share - wanted[code]).max() < 0.05
        assert np.abs(share - wanted[code]).mean() < 0.015
    assert np.allclose(np.sum(list(shares.values()), axis=0), 1.0, atol=1e-5)
    assert found.table.select(cells.column_names).equals(cells)


def test_nodata_and_zero_are_no_land_cover_and_absent_classes_no_columns(cells: pa.Table, tmp_path: Path) -> None:
    """The nodata value and 0 do not count; where the map ends the sum of shares is below one."""
    pixels = _patches((400, 600), 8, (0, 10, 77))
    source = _write(tmp_path / "map.tif", pixels, west=8.5, north=49.0, step=0.004, nodata=77)
    found = land_cover_fractions(cells, source)
    assert [n for n in found.table.column_names if n.startswith("lc_")] == ["lc_10"]
    half = _write(tmp_path / "half.tif", pixels[:, :250], west=8.5, north=49.0, step=0.004, nodata=77)
    note = land_cover_fractions(cells, half).note
    assert "cells have no land cover" in note


def test_an_overview_is_read_when_pixels_are_finer_than_needed(
    cells: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 0.0005° (55 m) map is read at its 8th overview, within 1/16 of a cell, and classes stay classes."""
    pixels = _patches((3200, 4800), 64)
    source = _write(tmp_path / "fine.tif", pixels, west=8.5, north=49.0, step=0.0005)
    read: list[int] = []
    level = RasterLevel.read

    def counted(self: Any, **window: int) -> Any:
        read.append(window["height"] * window["width"])
        return level(self, **window)

    monkeypatch.setattr(RasterLevel, "read", counted)
    shares = _shares(land_cover_fractions(cells, source).table)
    assert set(shares) <= {10, 30, 40, 80}
    assert sum(read) < pixels.size / 64 * 1.2
    wanted = _by_hand(cells, pixels, 8.5, 49.0, 0.0005, 4326)
    assert max(np.abs(shares[k] - wanted[k]).max() for k in wanted) < 0.06


def test_folders_and_patterns_of_tiles_equal_one_map(cells: pa.Table, tmp_path: Path) -> None:
    """A map cut into tiles gives the same fractions, and overlapping tiles do not count twice."""
    pixels = _patches((400, 600), 8)
    whole = _shares(
        land_cover_fractions(cells, _write(tmp_path / "w.tif", pixels, west=8.5, north=49, step=0.004)).table
    )
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, rows, cols in (("a", (0, 200), (0, 300)), ("b", (200, 400), (0, 300)), ("c", (0, 400), (300, 600))):
        cut = pixels[rows[0] : rows[1], cols[0] : cols[1]]
        _write(parts / f"{name}_Map.tif", cut, west=8.5 + 0.004 * cols[0], north=49 - 0.004 * rows[0], step=0.004)
    for source in (str(parts), str(parts / "*_Map.tif")):
        found = _shares(land_cover_fractions(cells, source).table)
        assert all(np.allclose(found[code], whole[code], atol=1e-6) for code in whole)
    _write(parts / "again.tif", pixels, west=8.5, north=49, step=0.004)
    doubled = _shares(land_cover_fractions(cells, str(parts)).table)
    assert all(np.allclose(doubled[code], whole[code], atol=1e-5) for code in whole)


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_netcdf_and_zarr_equal_the_raster(cells: pa.Table, tmp_path: Path, kind: str, ascending: bool) -> None:
    """Gridded files give the same fractions, latitude in either order."""
    pixels = _patches((400, 600), 8)
    whole = _shares(
        land_cover_fractions(cells, _write(tmp_path / "w.tif", pixels, west=8.5, north=49, step=0.004)).table
    )
    data = xr.Dataset(
        {"lccs_class": (("lat", "lon"), pixels, {"flag_values": [10, 30, 40, 80]}), "count": ((), 1)},
        {"lat": 49 - 0.004 * (np.arange(400) + 0.5), "lon": 8.5 + 0.004 * (np.arange(600) + 0.5)},
    )
    data = data.sortby("lat") if ascending else data
    path = tmp_path / f"map.{kind}"
    _ = data.to_netcdf(path, engine="h5netcdf") if kind == "nc" else data.to_zarr(path, consolidated=False)
    found = _shares(land_cover_fractions(cells, str(path)).table)
    assert all(np.array_equal(found[code], whole[code]) for code in whole)


def test_a_global_map_serves_tiles_on_the_antimeridian(tmp_path: Path) -> None:
    """Cells on both sides of ±180 find their pixels at both ends of the map, of ±180 and of 0-360 maps."""
    cells = owned_cells(["01KAB"], EARTH, chip_size=256).table
    lon = -180 + (np.arange(7200) + 0.5) * 0.05
    pixels = np.repeat(np.where(lon < 0, 10, 20).astype(np.uint8)[None], 3600, axis=0)
    plain = _write(tmp_path / "plain.tif", pixels, west=-180, north=90, step=0.05)
    turned = _write(tmp_path / "turned.tif", np.roll(pixels, 3600, axis=1), west=0, north=90, step=0.05)
    one, other = (_shares(land_cover_fractions(cells, source).table) for source in (plain, turned))
    assert set(one) == {10, 20}
    assert all(np.array_equal(one[code], other[code]) for code in one)
    middle = np.asarray(cells["lon"])
    assert (one[10][(middle < 0) & (middle > -179.9)] == 1).all()
    assert (one[20][(middle > 0) & (middle < 179.9)] == 1).all()


def test_a_coarse_map_says_so(cells: pa.Table, tmp_path: Path) -> None:
    """Pixels wider than cells are used and noted."""
    source = _write(tmp_path / "c.tif", _patches((180, 360), 2), west=-180, north=90, step=1.0)
    assert "coarser than the cells" in land_cover_fractions(cells, source).note


@pytest.mark.parametrize("size", [64, 128])
def test_smaller_cells_sum_to_larger_ones(size: int, tmp_path: Path) -> None:
    """The mean over the small cells of a block is the block's fraction."""
    source = _write(tmp_path / "map.tif", _patches((4000, 6000), 40), west=8.5, north=49.0, step=0.0004)
    large = land_cover_fractions(owned_cells([TILE], EARTH, chip_size=256).table, source).table
    small = land_cover_fractions(owned_cells([TILE], EARTH, chip_size=size).table, source).table.to_pandas()
    ratio = 256 // size
    small["block"] = small.cell_row // ratio * 100 + small.cell_col // ratio
    means = small.groupby("block")["lc_10"].agg(["mean", "size"])
    means = means[means["size"] == ratio * ratio]
    wanted = large.to_pandas().set_index(large.to_pandas().eval("cell_row * 100 + cell_col"))["lc_10"]
    assert (means["mean"] - wanted.reindex(means.index)).abs().max() < 0.06


def _behind(folder: Path, ranges: bool) -> App:
    def app(request: Request) -> Served:
        file = folder / request.path.lstrip("/")
        whole = Served(body=file.read_bytes()) if file.is_file() else Served(status=404)
        return ranged(request, whole) if ranges else whole

    return app


def test_a_map_behind_an_address_is_read(cells: pa.Table, tmp_path: Path) -> None:
    """A COG on a web server gives the same fractions."""
    path = Path(_write(tmp_path / "map.tif", _patches((400, 600), 8), west=8.5, north=49.0, step=0.004))
    with serving(_behind(tmp_path, ranges=True)) as server:
        remote = land_cover_fractions(cells, f"{server.url}/map.tif").table
    assert remote.equals(land_cover_fractions(cells, str(path)).table)


def test_a_map_without_ranges_is_refused(cells: pa.Table, tmp_path: Path) -> None:
    """A server that sends whole files only is said, with the remedy."""
    _write(tmp_path / "map.tif", _patches((400, 600), 8), west=8.5, north=49.0, step=0.004)
    with serving(_behind(tmp_path, ranges=False)) as server, pytest.raises(ArchiveError, match="download the file"):
        land_cover_fractions(cells, f"{server.url}/map.tif")


def _broken(tmp_path: Path, kind: str) -> str:
    path = tmp_path / f"{kind}.tif"
    rng = np.random.default_rng(0)
    if kind == "float":
        profile = {"driver": "GTiff", "height": 10, "width": 10, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
        with rasterio.open(path, "w", **profile, transform=rasterio.Affine(1, 0, 5, 0, -1, 52)) as target:
            target.write(np.zeros((10, 10), dtype=np.float32), 1)
    elif kind == "continuous":
        pixels = rng.integers(1, 200, (400, 600)).astype(np.uint8)
        _write(path, pixels, west=8.5, north=49.0, step=0.004)
    elif kind == "elsewhere":
        _write(path, _patches((400, 600), 8), west=108.5, north=9.0, step=0.004)
    elif kind == "page":
        path.write_text("<html>login</html>")
    elif kind == "folder":
        (tmp_path / "folder.tif").mkdir()
    return str(path)


@pytest.mark.parametrize(
    ("kind", "error", "part"),
    [
        ("missing", InputError, "names no raster"),
        ("float", InputError, "float32"),
        ("continuous", InputError, "distinct values"),
        ("elsewhere", InputError, "no land cover in the region's cells"),
        ("page", ArchiveError, "cannot be read as a raster"),
        ("folder", InputError, "names no raster"),
    ],
)
def test_what_is_no_class_map_of_the_region_is_refused(
    cells: pa.Table, tmp_path: Path, kind: str, error: type[Exception], part: str
) -> None:
    """The message names the option, the file, the rule and the remedy."""
    source = _broken(tmp_path, kind)
    with pytest.raises(error, match="--land-cover") as caught:
        land_cover_fractions(cells, source)
    assert part in str(caught.value)
    assert source in str(caught.value)


def test_a_map_that_lists_its_classes_may_have_many(cells: pa.Table, tmp_path: Path) -> None:
    """A crop map with a colour table has more classes than a guess would allow."""
    pixels = np.random.default_rng(0).integers(1, 130, (400, 600)).astype(np.uint8)
    colours = {code: (code, code, code) for code in range(256)}
    source = _write(tmp_path / "crops.tif", pixels, west=8.5, north=49.0, step=0.004, colormap=colours)
    assert len(_shares(land_cover_fractions(cells, source).table)) > 100


def test_real_world_cover_overviews_agree_with_full_resolution(shared_data: Path) -> None:
    """On the real 10 m tile of São Tomé, fractions from an overview are within 4 % of those from all 10 m pixels."""
    source = str(next((shared_data / "worldcover").glob("*_Map.tif")))
    cells = owned_cells(["32NKF", "32NKG"], parse_region("6.4,0,6.8,0.45"), chip_size=256).table
    found = _shares(land_cover_fractions(cells, source).table)
    assert 10 in found
    with rasterio.open(source) as raster:
        for number in np.flatnonzero(found[10] > 0.05)[:3].tolist():
            lon, lat, half = cells["lon"][number].as_py(), cells["lat"][number].as_py(), 256 * 30 / 2 / 111_320
            window = rasterio.windows.from_bounds(lon - half, lat - half, lon + half, lat + half, raster.transform)
            pixels = raster.read(1, window=window)
            assert found[10][number] == pytest.approx((pixels == 10).mean(), abs=0.04)


def test_real_continuous_maps_are_refused(shared_data: Path) -> None:
    """Elevation in metres is no land cover, although it is stored in integers."""
    grid = gpd.read_parquet(shared_data / "s2-grid" / "sentinel-2-grid_LAND.parquet")["tile"]
    conus = owned_cells(list(grid[grid.str.match("1[0-4]S")]), EARTH, chip_size=256).table
    with pytest.raises(InputError, match="continuous quantity"):
        land_cover_fractions(conus, str(shared_data / "maps" / "elevation_m_0.333deg.tif"))
