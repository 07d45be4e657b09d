"""The columnar way from items to the SceneTable equals the plain way, item by item."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_scenes import plain_rows
from servers.granule_items import same_table
from shapely.geometry import MultiPolygon, Point, Polygon, box

from geofm_pipeline.catalogs import skipped
from geofm_pipeline.catalogs.ids import parse_ids, seconds_of, sensor_codes, tile_numbers
from geofm_pipeline.catalogs.items import CatalogItem, batched
from geofm_pipeline.catalogs.rows import scene_table
from geofm_pipeline.errors import InputError, NothingFoundError
from geofm_pipeline.hls.bands import SENSOR_CODE
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.region import parse_region
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.years import parse_years
from geofm_sampling.unit import unpack_tile

KEYS = ("B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12", "Fmask", "B01")
TILES = ("32TNS", "32TNR", "01KAB", "19LBJ", "60VXQ")
digits = st.integers(0, 9).map(str)
good_ids = st.builds(
    "HLS.{}.T{}.{}{:03d}T{:02d}{:02d}{:02d}.v2.0".format,
    st.sampled_from(["L30", "S30"]),
    st.sampled_from(TILES),
    st.sampled_from([2019, 2020, 2022]),
    st.integers(1, 20),
    st.integers(0, 1),
    st.sampled_from([0, 59]),
    st.sampled_from([0, 1]),
)
near_ids = st.builds(
    "HLS.{}.T{}.{:04d}{:03d}T{:02d}{:02d}{:02d}.v{}".format,
    st.sampled_from(["L30", "S30", "S10", "l30"]),
    st.sampled_from([*TILES, "32TAS", "00TNS", "61TNS", "32INS", "32TNW", "32tNS"]),
    st.sampled_from([2019, 2020, 2022, 1999]),
    st.sampled_from([0, 1, 60, 365, 366, 367, 999]),
    st.integers(22, 25),
    st.integers(58, 61),
    st.integers(58, 61),
    st.sampled_from(["2.0", "1.5", "10.0", "2.00", "x"]),
)
ids = good_ids | near_ids | st.sampled_from(["", "HLS", "LC08_L2SP", "HLS.L30.T32TNS.2022001T000000.v2.0é", "x" * 34])
shapes = st.sampled_from(
    [
        None,
        box(9, 45, 10, 46),
        Polygon([(9, 45), (9, 46), (10, 46), (10, 45)]),
        Polygon([(9, 45), (10, 46), (10, 45), (9, 46)]),
        Polygon([(9, 45, 7), (10, 45, 7), (10, 46, 7)]),
        Polygon([(9, 45), (12, 45), (12, 48), (9, 48)], [[(10, 46), (11, 46), (11, 47), (10, 47)]]),
        Polygon([(179.5, 1), (-179.5, 1), (-179.5, 2), (179.5, 2)]),
        MultiPolygon([box(179, -20, 180, -19), box(-180, -20, -179, -19)]),
        box(170, 10, 190, 11),
        Point(9, 45),
        Polygon(),
    ]
)
forms = st.sampled_from(
    [
        "https://a.example/{id}/{id}.{band}.tif",
        "https://b.example/{id}.{band}.tif?sig=a",
        "/data/{band}/{id}/file.{band}.tif",
        "s3://bucket/{id}/{id}.{band}.tif",
        "https://c.example/{band}.tif?B04={id}",
        "https://d.example/HLS.S30.T32TNS.2022001T000000.v2.0/{id}.{band}.tif",
        "https://e.example/nothing",
    ]
)


@st.composite
def assets(draw: st.DrawFn, name: str) -> dict[str, str]:
    main = draw(forms)
    found = {}
    for key in draw(st.just(KEYS) | st.lists(st.sampled_from(KEYS), unique=True)):
        form = draw(st.just(main) | forms) if draw(st.integers(0, 9)) == 0 else main
        found[key] = form.replace("{id}", name).replace("{band}", key)
    if draw(st.integers(0, 4)) == 0:
        return {f"name_{key}": href for key, href in found.items()}
    return found


@st.composite
def catalog_items(draw: st.DrawFn) -> CatalogItem:
    name = draw(ids)
    return CatalogItem(
        id=name,
        cloud_cover=draw(st.sampled_from([0.0, 12.0, 100.0, math.nan])),
        geometry=draw(shapes),
        assets=draw(assets(name)),
    )


@settings(max_examples=300)
@given(
    st.lists(catalog_items(), min_size=1, max_size=25),
    st.integers(1, 30),
    st.sampled_from(["-180,-90,180,90", "9,45,9.5,45.5", "179,-30,-179,60", "32TNS,01KAB"]),
    st.sampled_from(["2022", "2019-2020", "2019,2022"]),
)
def test_columns_equal_the_plain_way(items: list[CatalogItem], size: int, region: str, years: str) -> None:
    """Rows, their order and the counts of what was skipped, however the items are cut into batches."""
    ground, time = parse_region(region), parse_years(years)
    rows, counts = plain_rows(items, ground, time)
    try:
        table = scene_table(batched(items, size), source="x", dialect="x", region=ground, years=time)
    except NothingFoundError:
        assert not rows
        return
    assert same_table(table, pa.Table.from_pylist(rows, schema=SCENES.schema()))
    assert skipped(table) == {name: n for name, n in counts.items() if name != "kept"}


@given(st.lists(ids, max_size=40))
def test_ids_are_taken_apart_as_one_by_one(names: list[str]) -> None:
    """Tile, time and sensor of every id, and which are none of ours."""
    found = parse_ids(pa.array(names, pa.string()))
    others = 0
    for row, name in enumerate(names):
        try:
            granule = GranuleId.parse(name)
        except (InputError, ValueError):
            granule = None
        others += granule is not None and granule.version != "2.0"
        if not found.is_granule[row]:
            continue
        assert granule is not None
        key = found.key[row : row + 1]
        assert unpack_tile(int(tile_numbers(key)[0])) == granule.tile
        assert seconds_of(key)[0] == granule.time.timestamp()
        assert sensor_codes(key)[0] == SENSOR_CODE[granule.sensor]
        assert found.year[row] == granule.time.year
    assert found.other_version == others


def test_ids_out_of_a_slice_are_read_where_they_are() -> None:
    """A slice of an array shares its buffers, so offsets count."""
    names = [f"HLS.S30.T32TNS.2022{day:03d}T101010.v2.0" for day in range(1, 31)]
    whole = parse_ids(pa.array(names))
    part = parse_ids(pa.array(["odd", *names]).slice(8, 9))
    assert np.array_equal(part.key, whole.key[7:16])


def test_an_archive_with_one_template_costs_nothing_by_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first granule of each sensor, and those that stray, are looked at one by one."""
    import geofm_pipeline.catalogs.hrefs as hrefs

    looked = []
    plain = hrefs.template
    monkeypatch.setattr(hrefs, "template", lambda name, found: looked.append(name) or plain(name, found))
    items = []
    for day in range(1, 301):
        name = f"HLS.S30.T32TNS.2022{day:03d}T101010.v2.0"
        found = {key: f"https://a.example/{name}/{name}.{key}.tif" for key in KEYS}
        items.append(CatalogItem(id=name, cloud_cover=1.0, geometry=box(9, 45, 10, 46), assets=found))
    del items[200].assets["Fmask"]  # type: ignore[attr-defined]
    table = scene_table(
        batched(items, 100), source="x", dialect="x", region=parse_region("32TNS"), years=parse_years(2022)
    )
    assert table.num_rows == 300
    assert sorted(set(looked)) == [items[0].id, items[200].id]
    assert shapely.from_wkb(table["footprint"][0].as_py()).equals(box(9, 45, 10, 46))
