"""Every dialect gives the same SceneTable for the same granules, and says what it skipped and what it has."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pystac
import pytest
import shapely
import stac_geoparquet.arrow
from servers.loopback import Reply, ranged, serving
from servers.maps import folder_app
from shapely.geometry import box, shape

from geofm_pipeline.catalogs import find_scenes, skipped
from geofm_pipeline.errors import ArchiveError, InputError, NothingFoundError
from geofm_pipeline.lonlat import tile_polygon
from geofm_pipeline.region import Region, parse_region
from geofm_pipeline.scenes import SCENES, asset_href
from geofm_pipeline.years import parse_years

Items = list[dict[str, Any]]
EARTH = parse_region("-180,-90,180,90")
ALL = parse_years("2021-2022")


def _parquet(items: Items, path: Path) -> None:
    stac_geoparquet.arrow.to_parquet(stac_geoparquet.arrow.parse_stac_items_to_arrow(copy.deepcopy(items)), path)


def _as_collection(items: Items, tmp_path: Path) -> str:
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(tmp_path / "items.json")


def _as_file(items: Items, tmp_path: Path) -> str:
    _parquet(items, tmp_path / "items.parquet")
    return str(tmp_path / "items.parquet")


def _as_folder(items: Items, tmp_path: Path) -> str:
    """By sensor and year, as the public archive is: the two sensors' schemas differ."""
    for item in items:
        sensor, year = item["id"][4:7], item["properties"]["datetime"][:4]
        folder = tmp_path / "lake" / f"HLS{sensor}_2.0" / f"year={year}"
        folder.mkdir(parents=True, exist_ok=True)
        same = [i for i in items if i["id"][4:7] == sensor and i["properties"]["datetime"][:4] == year]
        _parquet(same, folder / "part.parquet")
    return str(tmp_path / "lake")


def _as_static(items: Items, tmp_path: Path) -> str:
    catalog = pystac.Catalog(id="archive", description="test")
    for item in items:
        child = catalog.get_child(item["collection"])
        if child is None:
            child = pystac.Catalog(id=item["collection"], description="one sensor")
            catalog.add_child(child)
        child.add_item(pystac.Item.from_dict(item))
    catalog.normalize_and_save(str(tmp_path / "static"), pystac.CatalogType.SELF_CONTAINED)
    return str(tmp_path / "static")


FILES = {"ItemCollection": _as_collection, "file": _as_file, "folder": _as_folder, "static": _as_static}


@pytest.fixture
def absolute(item_of: Callable[..., dict[str, Any]], items: Items) -> Items:
    """The items with absolute hrefs, so that the place of the catalogue does not matter."""
    return [item_of(item["id"], folder="https://archive.example/hls") for item in items]


@pytest.mark.parametrize("dialect", ["file", "folder", "static"])
def test_all_dialects_give_the_same_table(absolute: Items, tmp_path: Path, dialect: str) -> None:
    """Rows, order, footprints and hrefs do not depend on how the catalogue is written down."""
    reference = find_scenes(_as_collection(absolute, tmp_path), EARTH, ALL)
    other = find_scenes(FILES[dialect](absolute, tmp_path), EARTH, ALL)
    assert other.equals(reference)
    assert reference.num_rows == len(absolute)


@pytest.mark.parametrize("dialect", ["ItemCollection", "static"])
def test_catalogues_on_a_web_server_give_the_same_table(absolute: Items, tmp_path: Path, dialect: str) -> None:
    """An http address works like a path, without a file name ending being needed."""
    root = Path(FILES[dialect](absolute, tmp_path))
    app = folder_app(root) if root.is_dir() else lambda request: ranged(request, Reply(body=root.read_bytes()))
    with serving(app) as server:
        table = find_scenes(f"{server.url}/catalog.json", EARTH, ALL)
    assert table.equals(find_scenes(_as_collection(absolute, tmp_path), EARTH, ALL))


def test_rows_come_from_the_id_and_are_sorted(items: Items, tmp_path: Path) -> None:
    """Sensor, tile and time are the id's, rows are sorted by (tile, time, id), the contract holds."""
    for item in items:
        item["properties"]["datetime"] = "1999-01-01T00:00:00Z"  # nonsense beside the id
    table = find_scenes(_as_collection(items, tmp_path), EARTH, ALL)
    assert SCENES.check(table) is not None
    keys = list(zip(*(table[n].to_pylist() for n in ("tile", "time", "granule_id")), strict=True))
    assert keys == sorted(keys)
    for row in table.to_pylist():
        assert row["granule_id"].split(".")[1:3] == [row["sensor"], "T" + row["tile"]]
        assert f"{row['time']:%Y%jT%H%M%S}" == row["granule_id"].split(".")[3]


def test_relative_hrefs_are_resolved_beside_the_file(items: Items, tmp_path: Path) -> None:
    """`./id/id.B04.tif` becomes an absolute path beside the catalogue; the template serves all seven assets."""
    for row in find_scenes(_as_collection(items, tmp_path), EARTH, ALL).to_pylist():
        assert row["href_template"] == f"{tmp_path}/{{id}}/{{id}}.{{band}}.tif"
        assert row["hrefs"] == []
        assert row["missing"] == []


def test_hrefs_that_stray_are_overrides_and_absent_assets_are_recorded(items: Items, tmp_path: Path) -> None:
    """Only what differs from the template is stored; a missing band is named by its file key."""
    strange = items[0]
    strange["assets"]["B04"]["href"] = "https://mirror.example/red.tif?signature=1"
    del strange["assets"]["Fmask"]
    del items[2]["assets"]["B8A"]
    items[2]["assets"]["B08"] = {"href": "./broad.B08.tif"}  # the broad NIR is no substitute
    table = find_scenes(_as_collection(items, tmp_path), EARTH, ALL)
    rows = {row["granule_id"]: row for row in table.to_pylist()}
    row = rows[strange["id"]]
    assert row["hrefs"] == [("B04", "https://mirror.example/red.tif?signature=1")]
    assert row["missing"] == ["Fmask"]
    href = asset_href(
        granule_id=row["granule_id"], sensor="L30", band="swir2", template=row["href_template"], overrides={}
    )
    assert href == f"{tmp_path}/{row['granule_id']}/{row['granule_id']}.B07.tif"
    assert rows[items[2]["id"]]["missing"] == ["B8A"]


def test_assets_with_other_keys_are_known_by_their_files(items: Items, tmp_path: Path) -> None:
    """Dialects that call assets `blue`, `swir_1`, `fmask` give the same row."""
    reference = find_scenes(_as_collection(items, tmp_path), EARTH, ALL)
    for item in items:
        item["assets"] = {f"name_{number}": asset for number, asset in enumerate(item["assets"].values())}
        item["assets"]["s3"] = {"href": f"s3://bucket/{item['id']}.B04.tif"}
    assert find_scenes(_as_collection(items, tmp_path), EARTH, ALL).equals(reference)
    _parquet(items, tmp_path / "named.parquet")
    named = find_scenes(str(tmp_path / "named.parquet"), EARTH, ALL)
    assert named.equals(reference)


def test_strangers_repeats_and_old_versions_are_skipped_and_counted(items: Items, tmp_path: Path) -> None:
    """Other products, product 1.5, repeats and other years are left out; the table says how many."""
    others = [copy.deepcopy(items[0]) for _ in range(3)]
    others[0]["id"] = "S2A_MSIL2A_20220101"
    others[1]["id"] = others[1]["id"].replace("v2.0", "v1.5")
    others[2]["id"] = "HLS.L30.T32UNU.2019366T101010.v2.0"  # 2019 had 365 days
    table = find_scenes(_as_collection([*items, *others, items[0], items[1]], tmp_path), EARTH, parse_years(2022))
    assert skipped(table) == {"not_hls": 2, "other_version": 1, "outside_years": 1, "duplicates": 2}
    assert table.num_rows == len(items) - 1
    summary = json.loads(table.schema.metadata[b"geofm"])
    assert (summary["items"], summary["kept"], summary["dialect"]) == (len(items) + 5, 6, "ItemCollection")


@pytest.mark.parametrize(("given", "wanted"), [(12, 12.0), ("37", 37.0), (None, None), ("cloudy", None), (0, 0.0)])
def test_cloud_cover_is_a_number_or_unknown(items: Items, tmp_path: Path, given: object, wanted: float | None) -> None:
    """CMR writes numbers and texts; anything else is NaN, never 0."""
    items[0]["properties"]["eo:cloud_cover"] = given
    table = find_scenes(_as_collection(items[:1], tmp_path), EARTH, ALL)
    value = table["cloud_cover"][0].as_py()
    assert math.isnan(value) if wanted is None else value == wanted


def _footprint(tmp_path: Path, item: dict[str, Any], geometry: object) -> shapely.Geometry:
    table = find_scenes(_as_collection([{**item, "geometry": geometry}], tmp_path), EARTH, ALL)
    return shapely.from_wkb(table["footprint"][0].as_py())


def test_odd_footprints_are_repaired(items: Items, tmp_path: Path) -> None:
    """Clockwise, self-crossing and unclosed-over-180 rings become valid polygons of the right ground."""
    item = items[0]
    clockwise = {"type": "Polygon", "coordinates": [[[9, 52], [9, 53], [10, 53], [10, 52], [9, 52]]]}
    assert _footprint(tmp_path, item, clockwise).equals(box(9, 52, 10, 53))
    assert shape(clockwise).exterior.is_ccw is False
    assert _footprint(tmp_path, item, clockwise).exterior.is_ccw is True  # type: ignore[attr-defined]
    bow = {"type": "Polygon", "coordinates": [[[9, 52], [10, 53], [10, 52], [9, 53], [9, 52]]]}
    assert _footprint(tmp_path, item, bow).area == pytest.approx(0.5)
    crossing = {"type": "Polygon", "coordinates": [[[179.5, 1], [-179.5, 1], [-179.5, 2], [179.5, 2], [179.5, 1]]]}
    split = _footprint(tmp_path, item, crossing)
    assert split.is_valid
    assert split.area == pytest.approx(1.0)
    assert split.intersects(shapely.Point(-179.9, 1.5))
    for nothing in (None, {}, {"type": "Polygon", "coordinates": []}, {"type": "Point", "coordinates": [9, 52]}):
        bare = {key: value for key, value in item.items() if key != "bbox"}
        assert _footprint(tmp_path, bare, nothing).equals(tile_polygon("32UNU").geoms[0])


def test_the_region_is_the_ground_that_footprints_touch(items: Items, tmp_path: Path) -> None:
    """A granule is kept when its footprint, not its box, touches the region; a tile region keeps its tiles."""
    catalog = _as_collection(items, tmp_path)
    tiles = set(find_scenes(catalog, parse_region("9.5,48.2,9.6,48.3"), ALL)["tile"].to_pylist())
    assert tiles == {"32UNU"}
    both = find_scenes(catalog, parse_region("9,48,12,49"), ALL)
    assert set(both["tile"].to_pylist()) == {"32UNU", "32UPU"}
    assert set(find_scenes(catalog, parse_region("32UPU"), ALL)["tile"].to_pylist()) == {"32UPU"}
    pacific = parse_region("179,-20,-179,20")
    touches = shapely.intersects(pacific.geometry, tile_polygon("01KAB"))
    assert touches
    for write in FILES.values():
        assert find_scenes(write(items, tmp_path), pacific, ALL)["tile"].to_pylist() == ["01KAB"]
    triangle = Region(name="corner", geometry=shapely.MultiPolygon([shapely.Polygon([(7, 47), (7, 50), (9.5, 50)])]))
    with pytest.raises(NothingFoundError):
        find_scenes(catalog, triangle, ALL)


@pytest.mark.parametrize("dialect", list(FILES))
@pytest.mark.parametrize(
    ("region", "years", "part"),
    [("-180,-90,180,90", "2015", "2021"), ("100,40,110,50", "2022", "longitude")],
)
def test_an_empty_search_says_what_the_archive_has(
    items: Items, tmp_path: Path, dialect: str, region: str, years: str, part: str
) -> None:
    """Years outside the archive are answered with its years, ground outside it with its ground."""
    catalog = FILES[dialect](items, tmp_path)
    with pytest.raises(NothingFoundError) as caught:
        find_scenes(catalog, parse_region(region), parse_years(years))
    assert caught.value.exit_code == 3
    for text in (catalog, years, part, "--years", "--region", "--catalog"):
        assert text in str(caught.value)


def test_a_catalogue_without_hls_says_so(items: Items, tmp_path: Path) -> None:
    """Items of another product, and no items at all, are told apart."""
    items[0]["id"] = "LC08_L2SP_193024"
    with pytest.raises(NothingFoundError, match=r"none of its 1 items is an HLS v2\.0 granule"):
        find_scenes(_as_collection(items[:1], tmp_path), EARTH, ALL)
    with pytest.raises(NothingFoundError, match="delivered no items"):
        find_scenes(_as_collection([], tmp_path), EARTH, ALL)


@pytest.mark.parametrize(
    ("name", "content", "error", "part"),
    [
        ("missing.json", None, InputError, "does not exist"),
        ("missing.parquet", None, InputError, "does not exist"),
        ("page.json", b"<!DOCTYPE html><html>login", ArchiveError, "web page"),
        ("broken.json", b'{"type": "FeatureColl', InputError, "not JSON"),
        ("list.json", b"[]", InputError, "JSON list"),
        ("topology.json", b'{"type": "Topology"}', InputError, "'Topology'"),
        ("empty.json", b'{"type": "FeatureCollection"}', ArchiveError, "no list of features"),
        ("text.parquet", b"not parquet", ArchiveError, "cannot be read as STAC GeoParquet"),
        ("catalog.json", b'{"type": "Catalog", "id": 1}', ArchiveError, "static catalogue"),
    ],
)
def test_what_is_no_catalogue_is_named(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], part: str
) -> None:
    """A missing, damaged or foreign file is answered with what it is and what would do."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=name) as caught:
        find_scenes(str(tmp_path / name), EARTH, ALL)
    assert part in str(caught.value)


def test_parquet_without_items_and_empty_folders_are_named(tmp_path: Path) -> None:
    """Any Parquet file is not a STAC GeoParquet, and a folder must hold one."""
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ArchiveError, match="columns lack id, geometry, assets"):
        find_scenes(str(tmp_path / "a.parquet"), EARTH, ALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match=r"neither catalog\.json nor any \.parquet"):
        find_scenes(str(tmp_path / "empty"), EARTH, ALL)


def test_a_static_catalogue_with_a_lost_item_is_an_error(items: Items, tmp_path: Path) -> None:
    """A broken link is never skipped silently: the frame would depend on luck."""
    folder = Path(_as_static(items, tmp_path))
    lost = next(folder.rglob(f"{items[0]['id']}.json"))
    lost.unlink()
    with pytest.raises(ArchiveError, match="cannot be read to its end"), nullcontext():
        find_scenes(str(folder), EARTH, ALL)


def test_a_million_rows_would_fit_in_a_gigabyte(items: Items, tmp_path: Path) -> None:
    """A row costs under 1 kB in memory."""
    table = find_scenes(_as_collection(items, tmp_path), EARTH, ALL)
    many = pa.concat_tables([table] * 200).combine_chunks()
    assert many.nbytes / many.num_rows < 1000  # footprints here have 33 points, those of the archive 5 to 10
