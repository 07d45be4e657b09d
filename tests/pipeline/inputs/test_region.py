"""Regions from boxes, files and tiles are right at the antimeridian and refused when they cannot be right."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_pipeline.lonlat import search_boxes, tile_polygon, unrolled, wrapped
from geofm_pipeline.region import parse_region


@given(st.floats(-180, 180), st.floats(-90, 89), st.floats(-180, 180), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_a_bbox_holds_exactly_its_points(west: float, south: float, east: float, share: float, seed: int) -> None:
    """A point is inside when its longitude lies between west and east going eastward, across ±180 too."""
    west, east, south = round(west, 3), round(east, 3), round(south, 3)
    if abs(west - east) < 0.01 or (abs(west), abs(east)) == (180.0, 180.0):
        return
    north = south + share * (90 - south)
    region = parse_region(f"{west},{south},{east},{north!r}")
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(-180, 180, 200), rng.uniform(-90, 90, 200)
    inside = ((lon - west) % 360 < (east - west) % 360) & (lat > south) & (lat < north)
    assert (shapely.contains_xy(region.geometry, lon, lat) == inside).all()
    assert all(w < e for w, _, e, _ in region.boxes)


def test_negative_west_and_spaces_are_read() -> None:
    """`-10,40,5,50` is a box, with spaces too."""
    assert parse_region(" -10, 40, 5, 50 ").geometry.bounds == (-10, 40, 5, 50)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("10,50,20,40", "south 50 not below north 40"),
        ("10,40,20,40", "south 40 not below north 40"),
        ("10,40,10,50", "no width"),
        ("10,40,20", "3 numbers"),
        ("190,40,200,50", "±180"),
        ("10,-95,20,50", "±90"),
        ("nan,40,20,50", "not finite"),
        ("inf,40,20,50", "not finite"),
        ("", "empty"),
        ("missing.geojson", "does not exist"),
        ("10SFE,10SIE", "10SIE"),
        ("99SFE", "99SFE"),
        ("11SAA", "column letter"),
    ],
)
def test_regions_that_cannot_be_right_are_refused(text: str, part: str) -> None:
    """The message names the value, the rule and a remedy."""
    with pytest.raises(InputError, match="region") as caught:
        parse_region(text)
    assert part in str(caught.value)


@pytest.mark.parametrize(("text", "part"), [("10SFEX", "10SFEX"), ("32TNR,99ABC", "99ABC"), ("T10SF", "T10SF")])
def test_what_looks_like_a_tile_is_never_looked_up_as_a_place(
    monkeypatch: pytest.MonkeyPatch, text: str, part: str
) -> None:
    """A mistyped tile id is answered at once, without outlines of countries from the network."""
    monkeypatch.setattr("geofm_pipeline.place_names.find_place", lambda *_, **__: pytest.fail("asked for a place"))
    with pytest.raises(InputError, match=f"{part} is no MGRS tile id"):
        parse_region(text)


def test_tiles_are_named_with_or_without_t_and_give_their_ground() -> None:
    """`T10SFE` and `10sfe` are one tile, whose outline holds its pixels and nothing beyond."""
    region = parse_region("T11SKA, 10sfe,T10SFE")
    assert region.tiles == ("10SFE", "11SKA")
    grid = tile_grid("10SFE")
    rng = np.random.default_rng(0)
    x, y = grid.xy(rng.uniform(2, 3658, 500), rng.uniform(2, 3658, 500))
    lon, lat = unproject(grid.zone, x, y)
    assert shapely.contains_xy(tile_polygon("10SFE"), lon, lat).all()
    outside = grid.xy(np.full(50, -3), rng.uniform(0, 3660, 50))
    assert not shapely.contains_xy(tile_polygon("10SFE"), *unproject(grid.zone, *outside)).any()


def test_a_tile_on_the_antimeridian_has_two_narrow_parts() -> None:
    """Tile 01KAB lies on both sides of ±180; no part is wider than the tile."""
    outline = tile_polygon("01KAB")
    assert len(outline.geoms) == 2
    assert max(part.bounds[2] - part.bounds[0] for part in outline.geoms) < 1.5
    assert {round(abs(edge)) for part in outline.geoms for edge in (part.bounds[0], part.bounds[2])} >= {180}
    assert len(search_boxes(outline)) == 2


def _write(path: Path, geometries: list[shapely.Geometry], crs: str | None) -> Path:
    gpd.GeoDataFrame(geometry=geometries, crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "shp", "parquet"])
def test_vector_files_of_any_kind_are_read(tmp_path: Path, suffix: str) -> None:
    """GeoJSON, GeoPackage, Shapefile and GeoParquet give the same region, dissolved."""
    path = tmp_path / f"area.{suffix}"
    frame = gpd.GeoDataFrame(geometry=[box(0, 0, 2, 2), box(1, 1, 3, 3)], crs="EPSG:4326")
    _ = frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    region = parse_region(str(path))
    assert region.name == "area"
    assert region.geometry.area == pytest.approx(7.0)
    assert region.geometry.is_valid


def test_a_projected_file_is_reprojected_along_its_curved_edges(tmp_path: Path) -> None:
    """A box with four corners in Albers metres has curved edges in degrees: the middle of each edge is kept."""
    path = _write(tmp_path / "conus.gpkg", [box(-2.3e6, 3e5, 2.2e6, 3.1e6)], "EPSG:5070")
    region = parse_region(str(path))
    middle = gpd.GeoSeries([Point(0, 3.1e6 - 2e4), Point(0, 3.1e6 + 2e4)], crs="EPSG:5070").to_crs(4326)
    assert region.geometry.contains(middle[0])
    assert not region.geometry.contains(middle[1])


def test_a_projected_file_across_the_antimeridian_is_split_there(tmp_path: Path) -> None:
    """A UTM zone 1 square around 180° becomes two parts that together have its size."""
    x, y = 166_000, 8_000_000
    path = _write(tmp_path / "fiji.gpkg", [box(x - 50_000, y, x + 50_000, y + 50_000)], "EPSG:32701")
    region = parse_region(str(path))
    assert len(region.geometry.geoms) == 2
    assert sum(p.bounds[2] - p.bounds[0] for p in region.geometry.geoms) == pytest.approx(0.95, abs=0.03)


def test_longitudes_beyond_180_in_a_file_are_wrapped(tmp_path: Path) -> None:
    """A lon/lat outline drawn from 175 to 185 is the ground from 175 to -175."""
    region = parse_region(str(_write(tmp_path / "over.geojson", [box(175, -20, 185, -10)], "EPSG:4326")))
    assert shapely.contains_xy(region.geometry, [179, -179, -170, 170], [-15] * 4).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert region.boxes == ((-180.0, -20.0, -175.0, -10.0), (175.0, -20.0, 180.0, -10.0))


def test_bad_rings_are_repaired_and_other_shapes_refused(tmp_path: Path) -> None:
    """A clockwise or self-crossing ring is made valid; points and lines are no region."""
    bow = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    region = parse_region(
        str(_write(tmp_path / "bow.geojson", [bow, Polygon([(5, 5), (5, 6), (6, 6), (6, 5)])], "EPSG:4326"))
    )
    assert region.geometry.area == pytest.approx(3.0)
    lines = _write(tmp_path / "line.geojson", [LineString([(0, 0), (1, 1)])], "EPSG:4326")
    with pytest.raises(InputError, match="LineString: a region needs polygons"):
        parse_region(str(lines))
    (tmp_path / "page.geojson").write_text("<html>login</html>")
    with pytest.raises(InputError, match="cannot be read as a vector file"):
        parse_region(str(tmp_path / "page.geojson"))


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_metres_without_a_reference_system_are_refused(tmp_path: Path) -> None:
    """Coordinates that are no degrees need a declared reference system."""
    path = tmp_path / "bare.shp"
    gpd.GeoDataFrame(geometry=[box(5e5, 4e6, 6e5, 5e6)]).to_file(path)
    with pytest.raises(InputError, match="declares no reference system"):
        parse_region(str(path))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """A file without features holds no region."""
    (tmp_path / "none.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    with pytest.raises(InputError, match="holds nothing"):
        parse_region(str(tmp_path / "none.geojson"))


def test_the_search_leaves_out_the_widest_gap() -> None:
    """Ground on both sides of the antimeridian is searched by two boxes, ground around Greenwich by one."""
    states = MultiPolygon([box(-170, 20, -60, 70), box(172, 51, 180, 54), box(-180, 51, -175, 54)])
    assert search_boxes(states) == ((-180.0, 20.0, -60.0, 70.0), (172.0, 51.0, 180.0, 54.0))
    assert search_boxes(MultiPolygon([box(-10, 0, -5, 5), box(5, 0, 10, 5)])) == ((-10.0, 0.0, 10.0, 5.0),)
    assert search_boxes(MultiPolygon([box(-180, -90, 180, 90)])) == ((-180.0, -90.0, 180.0, 90.0),)


def test_a_ring_round_the_pole_is_closed_over_it() -> None:
    """A footprint that circles a pole holds the pole's surroundings."""
    lon = np.arange(-180, 180, 20.0)
    cap = unrolled(Polygon(np.column_stack([lon, np.full_like(lon, 80.0)])))
    assert shapely.contains_xy(cap, [0, 100, -179], [85, 89, 81]).all()
    assert not shapely.contains_xy(cap, [0.0], [70.0]).any()


@given(st.floats(-180, 180), st.floats(-75, 75), st.floats(0.1, 30), st.booleans())
def test_unrolling_inverts_the_folding_of_longitudes(lon: float, lat: float, width: float, clockwise: bool) -> None:
    """A box whose longitudes were folded into ±180 is recovered as the same ground."""
    plain = box(lon, lat, lon + width, lat + 1, ccw=not clockwise)
    folded = shapely.transform(plain, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]]))
    assert unrolled(folded).symmetric_difference(wrapped(plain)).area < 1e-6


def test_a_file_of_several_layers_is_refused(tmp_path: Path) -> None:
    """A GeoPackage of two layers never loses the ground of one in silence: the layers are named."""
    file = tmp_path / "two.gpkg"
    for name, west in (("one", 5), ("two", 15)):
        gpd.GeoDataFrame(geometry=[box(west, 40, west + 1, 41)], crs="EPSG:4326").to_file(file, layer=name)
    with pytest.raises(InputError, match="2 layers with outlines \\(one, two\\)"):
        parse_region(str(file))
