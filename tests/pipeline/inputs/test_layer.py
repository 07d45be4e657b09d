"""A vector layer gives each cell the value of the polygon that its centre lies in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely
from shapely.geometry import Point, Polygon, box

from geofm_pipeline.cells import owned_cells
from geofm_pipeline.covariates import layer_values
from geofm_pipeline.errors import InputError
from geofm_pipeline.region import parse_region
from geofm_sampling.tables import CELLS

EARTH = parse_region("-180,-84,180,84")


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """Cells near 9-10° E, 48° N."""
    return owned_cells(["32UNU"], EARTH, chip_size=128).table


def _save(path: Path, shapes: list[object], values: list[object], *, crs: str | None = "EPSG:4326") -> str:
    frame = gpd.GeoDataFrame({"Zone": values, "other": range(len(values))}, geometry=shapes, crs=crs)
    _ = frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return str(path)


def _values(table: pa.Table) -> np.ndarray:
    return np.array(table["by_zone"].to_pylist(), dtype=object)


@pytest.mark.parametrize("name", ["zones.gpkg", "zones.shp", "zones.geojson", "zones.parquet", "zones.fgb"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:32633"])
def test_the_value_at_the_centre_in_any_file_and_reference_system(
    cells: pa.Table, tmp_path: Path, name: str, crs: str
) -> None:
    """West and east of 9.6° E, none beyond 10.2° E; the same in every format and projection."""
    if name == "zones.geojson" and crs != "EPSG:4326":
        pytest.skip("GeoJSON is lon/lat by its standard")
    west, east = shapely.segmentize(box(8, 47, 9.6, 50), 0.05), shapely.segmentize(box(9.6, 47, 10.2, 50), 0.05)
    frame = gpd.GeoSeries([west, east], crs="EPSG:4326").to_crs(crs)
    found = layer_values(cells, _save(tmp_path / name, list(frame), ["West", "East"], crs=crs), "zone")
    lon = np.asarray(cells["lon"])
    away = (np.abs(lon - 9.6) > 1e-3) & (np.abs(lon - 10.2) > 1e-3)
    wanted = np.where(lon < 9.6, "West", np.where(lon < 10.2, "East", "none")).astype(object)
    assert (_values(found.table) == wanted)[away].all()
    assert "lie in no polygon with Zone: class none" in found.note
    assert CELLS.check(found.table).select(cells.column_names).equals(cells)


def test_of_overlapping_polygons_the_smallest_wins_whatever_their_order(cells: pa.Table, tmp_path: Path) -> None:
    """A lake in a country is the lake, said; overlaps of equal values are nothing to say."""
    country, lake = box(8, 47, 12, 50), Point(9.5, 48.2).buffer(0.2)
    first = layer_values(cells, _save(tmp_path / "a.gpkg", [country, lake], ["land", "lake"]), "Zone")
    other = layer_values(cells, _save(tmp_path / "b.gpkg", [lake, country], ["lake", "land"]), "Zone")
    assert first.table.equals(other.table)
    inside = shapely.contains_xy(lake, np.asarray(cells["lon"]), np.asarray(cells["lat"]))
    assert ((_values(first.table) == "lake") == inside).all()
    assert first.note == f"{inside.sum()} cells lie in several polygons of Zone: the smallest one counts"
    same = layer_values(cells, _save(tmp_path / "c.gpkg", [lake, country], ["land", "land"]), "Zone")
    assert same.note == ""


def test_smaller_is_smaller_on_the_ground(tmp_path: Path) -> None:
    """A polygon near the pole with more square degrees, but less ground, wins over one at the equator."""
    cells = owned_cells(["33XWG"], EARTH, chip_size=256).table
    arctic, long = box(0, 75, 40, 82), box(14, -60, 17, 82)
    found = layer_values(cells, _save(tmp_path / "a.gpkg", [long, arctic], ["long", "arctic"]), "Zone")
    assert set(_values(found.table)) == {"arctic"}


def test_a_polygon_over_the_antimeridian_holds_both_sides(tmp_path: Path) -> None:
    """Longitudes drawn beyond 180 and outlines of a projection over the antimeridian hold cells on both sides."""
    cells = owned_cells(["01KAB", "60KYF"], EARTH, chip_size=256).table
    drawn = box(175, -30, 185, 0)
    plain = layer_values(cells, _save(tmp_path / "a.gpkg", [drawn], ["x"]), "Zone")
    metres = gpd.GeoSeries([shapely.segmentize(box(-5, -30, 5, 0), 1.0)], crs="EPSG:4326").set_crs(
        "EPSG:4326", allow_override=True
    )
    projected = gpd.GeoSeries(
        [shapely.transform(metres.iloc[0], lambda xy: xy * 111_319.49)], crs="+proj=eqc +lon_0=180 +datum=WGS84"
    )
    other = layer_values(
        cells, _save(tmp_path / "b.gpkg", list(projected), ["x"], crs="+proj=eqc +lon_0=180 +datum=WGS84"), "Zone"
    )
    assert set(_values(plain.table)) == {"x"} == set(_values(other.table))
    assert set(np.sign(np.asarray(cells["lon"]))) == {-1.0, 1.0}


def test_numbers_and_gaps_become_text(cells: pa.Table, tmp_path: Path) -> None:
    """Whole numbers lose their .0, missing values are none, a bow-tie outline is repaired."""
    bow_tie = Polygon([(8, 47), (9.5, 50), (9.5, 47), (8, 50)])
    source = _save(tmp_path / "a.gpkg", [bow_tie, box(9.5, 47, 12, 50)], [14.0, float("nan")])
    found = layer_values(cells, source, "zone")
    assert set(_values(found.table)) == {"14", "none"}


def _two_layers(path: Path) -> str:
    source = _save(path, [box(8, 47, 12, 50)], ["x"])
    gpd.GeoDataFrame({"Zone": ["y"]}, geometry=[box(8, 47, 12, 50)], crs="EPSG:4326").to_file(path, layer="second")
    return source


@pytest.mark.parametrize(
    ("make", "attribute", "part"),
    [
        (lambda p: str(p / "missing.gpkg"), "Zone", "does not exist"),
        (lambda p: _save(p / "a.gpkg", [box(8, 47, 12, 50)], ["x"]), "biome", "it has Zone, other"),
        (lambda p: _save(p / "a.gpkg", [Point(9, 48)], ["x"]), "Zone", "holds no polygons"),
        (lambda p: _save(p / "a.gpkg", [box(80, 47, 82, 50)], ["x"]), "Zone", "covers none of the region's"),
        (lambda p: _save(p / "a.parquet", [box(5e5, 5e6, 6e5, 6e6)], ["x"], crs=None), "Zone", "no reference system"),
        (lambda p: _two_layers(p / "a.gpkg"), "Zone", "has 2 layers"),
        (lambda p: str((p / "a.json").write_text("<html>") and p / "a.json"), "Zone", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused(
    cells: pa.Table, tmp_path: Path, make: Callable[[Path], str], attribute: str, part: str
) -> None:
    """The message names the option, the file, what is wrong and what there is."""
    with pytest.raises(InputError, match="--strata") as caught:
        layer_values(cells, make(tmp_path), attribute)
    assert part in str(caught.value)


def test_real_ecoregions_fit_known_places(shared_data: Path) -> None:
    """RESOLVE ecoregions, half of them invalid as drawn: biomes of known places, and the sea is none."""
    cells = owned_cells(["20MPA", "31RFL", "12SVC", "33XWG"], EARTH, chip_size=256).table
    found = layer_values(cells, str(shared_data / "maps" / "ecoregions.json"), "biome_name")
    frame = found.table.to_pandas()
    top = frame.groupby("tile")["by_biome_name"].agg(lambda values: values.mode()[0])
    assert "Tropical & Subtropical Moist" in top["20MPA"]
    assert "Desert" in top["31RFL"]
    assert {"Tundra", "none"} & set(frame.loc[frame["tile"] == "33XWG", "by_biome_name"])
