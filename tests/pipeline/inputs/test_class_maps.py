"""What is a map of classes, of which year, with which names, and which of its rasters a tile opens."""

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

from geofm_pipeline.cells import owned_cells, tile_cells
from geofm_pipeline.covariates import land_cover as land_cover_module
from geofm_pipeline.covariates import land_cover_fractions, land_cover_names
from geofm_pipeline.covariates.class_bands import open_band
from geofm_pipeline.covariates.class_evidence import why_continuous
from geofm_pipeline.covariates.class_index import ClassRaster, boxes_meet, class_map, nearest_year, tile_box
from geofm_pipeline.covariates.legends import resolve_legend
from geofm_pipeline.errors import InputError
from geofm_pipeline.raster import write_cog
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-84,180,84")


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """The 196 cells of one tile near 9-10° E, 48° N."""
    return owned_cells(["32UNU"], EARTH, chip_size=256).table


def _write(path: Path, pixels: NDArray[Any], **options: Any) -> str:
    step = options.pop("step", 0.004)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cog(path, pixels, epsg=4326, transform=(step, 0, 8.5, 0, -step, 49.0), **options)
    return str(path)


def _patches(classes: tuple[int, ...], shape: tuple[int, int] = (400, 600), edge: int = 8) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    coarse = rng.choice(np.array(classes, dtype=np.uint8), (shape[0] // edge + 1, shape[1] // edge + 1))
    return np.kron(coarse, np.ones((edge, edge), dtype=np.uint8))[: shape[0], : shape[1]]


def _why(path: Path | str) -> str:
    with open_band(str(path), pixel_m=0.0) as band:
        return why_continuous(band)


def _percent(shape: tuple[int, int] = (400, 600), most: int = 40) -> NDArray[np.uint8]:
    """A smooth field with noise, 5 to `most` %: fewer than 64 values, nearly all neighbours unequal."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    field = most / 2 + most / 3 * np.sin(x / 40) * np.cos(y / 50) + rng.normal(0, 3, shape)
    return np.clip(field, 5, most).astype(np.uint8)


def test_percentages_with_few_values_are_refused_and_a_table_of_classes_overrules(
    cells: pa.Table, tmp_path: Path
) -> None:
    """36 values of a percentage are no classes, because neighbours differ; with a colour table they are believed."""
    source = _write(tmp_path / "cover.tif", _percent())
    with pytest.raises(InputError, match="continuous quantity") as caught:
        land_cover_fractions(cells, source)
    assert "neighbouring pixels differ" in str(caught.value)
    assert "colour table" in str(caught.value)
    colours = {code: (code, 0, 0) for code in range(256)}
    listed = _write(tmp_path / "listed.tif", _percent(), colormap=colours)
    assert len(land_cover_fractions(cells, listed).table.column_names) > 20


@pytest.mark.parametrize("unit", ["%", "percent", "m"])
def test_a_unit_is_no_class(cells: pa.Table, tmp_path: Path, unit: str) -> None:
    """Integers with a unit are a quantity, even where few values lie in patches."""
    data = xr.Dataset(
        {"cover": (("lat", "lon"), _patches((10, 20, 30)), {"units": unit})},
        {"lat": 49 - 0.004 * (np.arange(400) + 0.5), "lon": 8.5 + 0.004 * (np.arange(600) + 0.5)},
    )
    data.to_netcdf(tmp_path / "map.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=f"its unit is '{unit}'"):
        land_cover_fractions(cells, str(tmp_path / "map.nc"))


def test_real_maps_of_classes_pass_and_real_quantities_do_not(shared_data: Path) -> None:
    """GLCNMO with 20 and 8 classes, Köppen, WorldCover, crops and land use pass; tree cover and elevation do not."""
    maps = shared_data / "maps"
    classes = [
        maps / "glcnmo2008_cover20_0.333deg.tif",
        maps / "glcnmo2008_cover8_0.333deg.tif",
        maps / "koppen_geiger_0.5deg.tif",
        shared_data / "labelled" / "gewata" / "lulcGewata.tif",
        *(shared_data / "worldcover").glob("*_Map.tif"),
        *(shared_data / "labelled" / "cdl").glob("*.tif"),
        *(shared_data / "labelled" / "land-cover-s2" / "LULC").glob("*.tif"),
    ]
    assert len(classes) > 7
    assert {path.name: _why(path) for path in classes} == {path.name: "" for path in classes}
    for path in (
        maps / "tree_cover_pct_0.333deg.tif",
        maps / "elevation_m_0.333deg.tif",
        shared_data / "labelled" / "gewata" / "vcfGewata.tif",
    ):
        assert _why(path)


def test_every_part_of_a_real_map_of_classes_passes(shared_data: Path, tmp_path: Path) -> None:
    """Cut-outs of 60 × 60 pixels of GLCNMO and Köppen, all over the Earth, are never taken for a quantity."""
    for name in ("glcnmo2008_cover20_0.333deg.tif", "koppen_geiger_0.5deg.tif"):
        with rasterio.open(shared_data / "maps" / name) as source:
            pixels = source.read(1)
        for row in range(0, pixels.shape[0] - 60, 60):
            for col in range(0, pixels.shape[1] - 60, 60):
                cut = pixels[row : row + 60, col : col + 60]
                if np.unique(cut).size > 12:
                    assert not _why(_write(tmp_path / "cut.tif", cut, step=0.1)), (name, row, col)


def test_of_several_years_the_nearest_is_used_and_said(cells: pa.Table, tmp_path: Path) -> None:
    """A folder with a map a year gives the year nearest to the run's, not a mixture of years."""
    for year, code in ((2018, 2), (2020, 5), (2022, 11)):
        pixels = np.full((400, 600), code, dtype=np.uint8)
        _write(tmp_path / "lulc" / f"32U_{year}0101-{year + 1}0101.tif", pixels)
    found = land_cover_fractions(cells, str(tmp_path / "lulc"), years=parse_years("2019-2020"))
    assert [name for name in found.table.column_names if name.startswith("lc_")] == ["lc_5"]
    assert "2018,2020,2022 of the land-cover map, 2020 is nearest to 2019-2020" in found.note
    last = land_cover_fractions(cells, str(tmp_path / "lulc"))
    assert "lc_11" in last.table.column_names


@pytest.mark.parametrize(
    ("found", "wanted", "year"),
    [
        ([2020, 2021], [2020], 2020),
        ([2020, 2021], [2015], 2020),
        ([2018, 2020], [2019], 2020),
        ([2017, 2023], [2018, 2019], 2017),
    ],
)
def test_the_nearest_year(found: list[int], wanted: list[int], year: int) -> None:
    """Least mean distance to the wanted years; of two the later."""
    assert nearest_year(found, wanted) == year


@pytest.mark.parametrize(
    ("path", "year"),
    [
        ("/a/ESA_WorldCover_10m_2021_v200_N00E006_Map.tif", 2021),
        ("/a/34S_20220101-20230101.tif", 2022),
        ("/lulc/2019/34S.tif", 2019),
        ("/a/glcnmo2008_cover20.tif", 2008),
        ("/a/map_12021.tif", None),
        ("/a/map.tif", None),
    ],
)
def test_the_year_in_a_name(path: str, year: int | None) -> None:
    """A year stands alone, begins a date, or names the folder."""
    raster = ClassRaster(path=path, box=(0, 0, 1, 1), stamp="", listed=False, names=())
    assert raster.year == year


def test_quality_files_beside_world_cover_are_no_maps(cells: pa.Table, tmp_path: Path) -> None:
    """A download of WorldCover has *_InputQuality.tif beside *_Map.tif; a folder of both is its maps."""
    _write(tmp_path / "wc" / "ESA_WorldCover_10m_2021_v200_N48E006_Map.tif", _patches((10, 30)))
    _write(tmp_path / "wc" / "ESA_WorldCover_10m_2021_v200_N48E006_InputQuality.tif", _patches((1, 2, 3)))
    found = land_cover_fractions(cells, str(tmp_path / "wc"))
    assert {name for name in found.table.column_names if name.startswith("lc_")} == {"lc_10", "lc_30"}


IO = {1: "water", 2: "tree", 5: "crop", 7: "built", 11: "grass"}


@pytest.mark.parametrize(
    ("codes", "source", "names", "asked", "title", "group"),
    [
        ([10, 40, 95], "map.tif", {}, None, "ESA WorldCover", {95: "wetland"}),
        ([10], "map.tif", {}, None, "ESA WorldCover", {10: "tree"}),
        ([1, 2, 5], "34S_20220101-20230101.tif", {}, None, "IO LULC", {5: "crop"}),
        ([1, 2, 5], "map.tif", {}, None, "none", {}),
        ([1, 2, 5, 7, 11], "map.tif", {}, None, "IO LULC", {11: "grass", 10: "cloud"}),
        ([1, 2, 3, 5, 7, 11], "map.tif", {}, None, "none", {}),
        ([1, 2, 5, 7, 11], "map.tif", {}, "none", "none", {}),
        ([1, 2], "map.tif", {}, "io-lulc", "IO LULC", {2: "tree"}),
        ([1, 36], "cdl.tif", {1: "Corn", 36: "Alfalfa/Hay"}, None, "names in the file", {36: "alfalfa_hay"}),
        ([10, 20], "gl30.tif", {10: "Cultivated land", 20: "Forest"}, None, "names in the file", {20: "forest"}),
        ([10, 60], "wc.tif", {10: "Tree cover", 60: "Bare / sparse"}, None, "ESA WorldCover", {60: "bare"}),
        ([1, 20], "map.tif", {1: "one"}, None, "none", {}),
    ],
)
def test_legends_are_recognised_with_care(
    codes: list[int], source: str, names: dict[int, str], asked: str | None, title: str, group: dict[int, str]
) -> None:
    """By what was asked, the file's name, its own names, WorldCover's codes, five of IO LULC's; else no names."""
    legend = resolve_legend(codes, source=source, names=names, asked=asked)
    assert legend.title == title
    assert group.items() <= dict(legend.groups).items()
    by_codes = source == "map.tif" and asked is None and not names
    assert bool(legend.note) == (by_codes and (title == "IO LULC" or (title == "ESA WorldCover" and len(codes) < 4)))


def test_a_legend_asked_for_must_know_the_codes() -> None:
    """Unknown legends and codes that a legend lacks are errors."""
    with pytest.raises(InputError, match="worldcover, io-lulc, none"):
        resolve_legend([1], source="map.tif", names={}, asked="corine")
    with pytest.raises(InputError, match="codes 3, which the legend io-lulc does not have"):
        resolve_legend([1, 3], source="map.tif", names={}, asked="io-lulc")


def test_unknown_codes_keep_their_numbers(cells: pa.Table, tmp_path: Path) -> None:
    """A map of another legend is used as it is: strata call its classes class_<code>."""
    found = land_cover_fractions(cells, _write(tmp_path / "map.tif", _patches((3, 17, 211))))
    assert [name for name in found.table.column_names if name.startswith("lc_")] == ["lc_3", "lc_17", "lc_211"]
    assert land_cover_names(found.table) == {}


def test_cf_flags_name_the_classes(cells: pa.Table, tmp_path: Path) -> None:
    """flag_values and flag_meanings of a NetCDF become the names of groups."""
    flags = {"flag_values": np.array([3, 17], np.uint8), "flag_meanings": "rainfed_cropland open_water"}
    data = xr.Dataset(
        {"lccs": (("lat", "lon"), _patches((3, 17)), flags)},
        {"lat": 49 - 0.004 * (np.arange(400) + 0.5), "lon": 8.5 + 0.004 * (np.arange(600) + 0.5)},
    )
    data.to_netcdf(tmp_path / "map.nc", engine="h5netcdf")
    found = land_cover_fractions(cells, str(tmp_path / "map.nc"))
    assert land_cover_names(found.table) == {3: "rainfed_cropland", 17: "open_water"}


def test_a_tile_opens_only_the_rasters_it_touches(
    cells: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 map tiles, those away from the ground are opened once for their header and never read."""
    whole = _patches((10, 30, 40, 80), (800, 1600))
    for row in range(0, 800, 200):
        for col in range(0, 1600, 400):
            path = tmp_path / "parts" / f"{row}-{col}_Map.tif"
            path.parent.mkdir(exist_ok=True)
            transform = (0.004, 0, 7.0 + 0.004 * col, 0, -0.004, 49.5 - 0.004 * row)
            write_cog(path, whole[row : row + 200, col : col + 400], epsg=4326, transform=transform)
    path = tmp_path / "whole.tif"
    write_cog(path, whole, epsg=4326, transform=(0.004, 0, 7.0, 0, -0.004, 49.5))
    opened: list[str] = []
    real = open_band

    def counting(source: str, **options: Any) -> Any:
        opened.append(source)
        return real(source, **options)

    monkeypatch.setattr(land_cover_module, "open_band", counting)
    found = land_cover_fractions(cells, str(tmp_path / "parts")).table
    assert 1 <= len(opened) <= 6
    whole_map = land_cover_fractions(cells, str(path)).table
    assert found.column_names == whole_map.column_names
    assert all(np.allclose(found[name], whole_map[name], atol=1e-6) for name in found.column_names if name[:3] == "lc_")


@pytest.mark.parametrize(
    ("tile", "box", "meets"),
    [
        ("01KAB", (179.0, -20.0, 180.0, -10.0), True),
        ("01KAB", (-180.0, -20.0, -179.5, -10.0), True),
        ("01KAB", (-180.0, -90.0, 180.0, 90.0), True),
        ("01KAB", (0.0, -90.0, 360.0, 90.0), True),
        ("01KAB", (178.0, -20.0, 182.0, -10.0), True),
        ("01KAB", (-170.0, -20.0, 170.0, -10.0), False),
        ("32UNU", (368.0, 40.0, 372.0, 50.0), True),
        ("32UNU", (8.0, 60.0, 12.0, 70.0), False),
    ],
)
def test_boxes_meet_across_the_antimeridian(tile: str, box: tuple[float, float, float, float], meets: bool) -> None:
    """A tile on the antimeridian meets rasters on both sides, whatever their longitudes count from."""
    assert boxes_meet(np.array([box]), tile_box(tile)).tolist() == [meets]


def test_the_box_of_a_tile_holds_its_cells(shared_data: Path) -> None:
    """For real tiles all over the Earth, no cell's centre lies outside the box that rasters are chosen by."""
    grid = gpd.read_parquet(shared_data / "s2-grid" / "sentinel-2-grid_LAND.parquet")["tile"]
    for tile in grid.tolist()[::500]:
        centres = tile_cells(tile, [tile], EARTH, chip_size=256).table
        west, south, east, north = tile_box(tile)
        lon, lat = np.asarray(centres["lon"]), np.asarray(centres["lat"])
        lon = west + (lon - west) % 360.0
        assert ((lon < east) & (lat > south) & (lat < north)).all(), tile


def test_a_map_in_another_reference_system_is_indexed_where_it_lies(tmp_path: Path) -> None:
    """An equal-area map of Europe is found by a tile in it and not by one in Africa."""
    write_cog(
        tmp_path / "laea.tif", _patches((1, 2)), epsg=3035, transform=(300.0, 0, 4_200_000.0, 0, -300.0, 2_900_000.0)
    )
    found = class_map(str(tmp_path / "laea.tif"), years=parse_years(2022))
    assert len(found.touching("32UNU")) == 1
    assert found.touching("36MXE") == ()
