"""What an archive promises: same seed same bytes, neighbours agree, masks and tags fit the pixels, items are STAC."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from numpy.typing import NDArray
from rasterio.windows import Window

from geofm_pipeline.errors import InputError, NothingFoundError, OutputConflictError
from geofm_pipeline.hls import fmask as fm
from geofm_pipeline.hls.bands import BAND_FILES, BANDS, FILL
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import project, tile_grid, unproject
from geofm_pipeline.simulator import (
    DEMO_REGION,
    Archive,
    ArchiveSpec,
    Extent,
    benchmark_spec,
    build_archive,
    demo_archive,
    demo_spec,
    open_archive,
    simulate,
    truth_surface,
)
from geofm_pipeline.simulator.granules import plan_granules
from geofm_pipeline.simulator.maps import archive_bounds

SMALL = ArchiveSpec(
    tiles=("32TNS",),
    years=(2022,),
    seed=119,
    extents={"32TNS": Extent(row=3072, col=1280, height=100, width=120)},
    per_year=3,
)


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def granules(archive: Archive) -> list[Path]:
    """Granule folders in order."""
    return sorted(archive.root.glob("HLS.?30.*"))


def read(granule: Path, band: str) -> NDArray[np.int16]:
    """The extent of one band of a granule, by canonical name or `fmask`."""
    name = GranuleId.parse(granule.name)
    key = "Fmask" if band == "fmask" else BAND_FILES[name.sensor][band]
    top, height = (0, 256) if name.tile == "32TNR" else (3072, 320)
    with rasterio.open(granule / f"{granule.name}.{key}.tif") as source:
        return source.read(1, window=Window(1280, top, 512, height))


def test_same_spec_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    """Two builds agree in every byte of every file, also with two workers; another seed does not."""
    one = build_archive(SMALL, tmp_path / "one")
    two = build_archive(SMALL, tmp_path / "two", workers=2)
    assert digests(one.root) == digests(two.root)
    other = build_archive(replace(SMALL, seed=7), tmp_path / "other")
    assert digests(one.root)["items.json"] != digests(other.root)["items.json"]


def test_a_second_build_returns_at_once_and_never_overwrites(tmp_path: Path) -> None:
    """An equal spec finds its archive untouched; anything else in the folder is refused and kept."""
    said: list[str] = []
    first = build_archive(SMALL, tmp_path / "a.b", progress=said.append)
    assert said
    said.clear()
    assert build_archive(SMALL, tmp_path / "a.b", progress=said.append) == first == open_archive(first.root)
    assert said == []
    with pytest.raises(OutputConflictError, match="neither empty nor the archive"):
        build_archive(replace(SMALL, seed=1), tmp_path / "a.b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.b"]


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a build breaks off, neither the target nor a temporary folder remains."""

    def broken(*_args: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("geofm_pipeline.simulator.archive.write_geoparquet", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        build_archive(SMALL, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_neighbouring_tiles_agree_where_they_overlap(tiny_archive: Archive) -> None:
    """In the 58 rows that both tiles hold, all bands and Fmask of one pass are identical, fill included."""
    pairs = 0
    for north in (g for g in granules(tiny_archive) if ".T32TNS." in g.name):
        south = north.parent / north.name.replace("T32TNS", "T32TNR")
        if not south.is_dir():
            continue
        pairs += 1
        first = (tile_grid("32TNS").y0 - tile_grid("32TNR").y0) // 30 - 3072
        for band in (*BANDS, "fmask"):
            shared = read(north, band)[first:]
            assert shared.shape == (58, 512)
            np.testing.assert_array_equal(shared, read(south, band)[:58], err_msg=f"{north.name} {band}")
    assert pairs >= 5


def test_a_tile_offset_distinguishes_the_tiles(tmp_path: Path) -> None:
    """With an offset, valid pixels of a tile differ from those without by one constant; fill and Fmask do not."""
    plain = build_archive(replace(SMALL, per_year=1), tmp_path / "plain")
    moved = build_archive(replace(SMALL, per_year=1, tile_offset=90), tmp_path / "moved")
    (a,), (b,) = granules(plain), granules(moved)
    before, after = read(a, "red")[:100, :120].astype(int), read(b, "red")[:100, :120].astype(int)
    differences = np.unique(np.abs((after - before)[before != FILL]))
    assert 0 < differences.max() <= 91
    assert np.ptp(differences) <= 1
    np.testing.assert_array_equal(read(a, "fmask"), read(b, "fmask"))


def test_fill_is_the_same_in_all_files_and_beyond_the_extent(tiny_archive: Archive) -> None:
    """A pixel is −9999 in all six bands exactly where Fmask is 255; at least one granule is cut by a swath's edge."""
    cut = 0
    for granule in granules(tiny_archive):
        missing = read(granule, "fmask") == fm.FILL
        cut += bool(missing.any())
        for band in BANDS:
            np.testing.assert_array_equal(read(granule, band) == FILL, missing)
    assert cut


def test_fmask_fits_the_pixels(tiny_archive: Archive) -> None:
    """Clouds are bright, shadows darker than clear land, snow bright and dark in SWIR, water dark in the near
    infrared; codes are ones that v2.0 writes; clear water has values ≤ 0 in some band."""
    names = dict.fromkeys((*BANDS, "fmask"), np.empty(0, dtype=np.int16))
    pixels = {n: np.concatenate([read(g, n).ravel() for g in granules(tiny_archive)]) for n in names}
    code = pixels["fmask"].astype(np.uint8)
    valid = code != fm.FILL

    def flag(name: str) -> NDArray[np.bool_]:
        return valid & (code >> fm.BITS[name] & 1 == 1)

    land = valid & fm.clear(code) & ~flag("snow") & ~flag("water")
    assert fm.impossible_share(code) == 0
    assert (code[valid] >> 6 >= 1).all()
    assert (pixels["blue"][flag("cloud")] > 1000).all()
    assert np.median(pixels["blue"][flag("cloud")]) > 3000
    assert np.median(pixels["nir_narrow"][flag("shadow")]) < 0.75 * np.median(pixels["nir_narrow"][land])
    snow = flag("snow") & fm.clear(code)
    assert np.median(pixels["green"][snow]) > 3 * np.median(pixels["swir1"][snow])
    water = flag("water") & fm.clear(code)
    assert np.median(pixels["nir_narrow"][water]) < 0.2 * np.median(pixels["nir_narrow"][land])
    assert (np.min([pixels[band][water] for band in BANDS], axis=0) <= 0).mean() > 0.05
    assert not (flag("cloud") & flag("shadow")).any()
    assert flag("adjacent").any()


def test_adjacent_pixels_surround_clouds(tiny_archive: Archive) -> None:
    """A pixel next to cloud or shadow that is neither is flagged as adjacent."""
    for granule in granules(tiny_archive)[::3]:
        code = read(granule, "fmask").astype(np.uint8)
        valid, dark = code != fm.FILL, (code & 0b1010 != 0) & (code != fm.FILL)
        beside = valid[:, 1:] & ~dark[:, 1:] & dark[:, :-1]
        assert (code[:, 1:][beside] & 0b100 != 0).all()


def test_tags_and_items_tell_what_fmask_holds(tiny_archive: Archive) -> None:
    """cloud_coverage, spatial_coverage and eo:cloud_cover equal NASA's formulas on the whole Fmask."""
    items = {item["id"]: item for item in json.loads(tiny_archive.items.read_text())["features"]}
    for granule in granules(tiny_archive):
        with rasterio.open(granule / f"{granule.name}.Fmask.tif") as source:
            mask, tags = source.read(1), source.tags()
        assert int(tags["cloud_coverage"]) == fm.cloud_cover(mask)
        assert int(tags["spatial_coverage"]) == fm.spatial_coverage(mask)
        assert items[granule.name]["properties"]["eo:cloud_cover"] == fm.cloud_cover(mask)
        assert tags["SENSING_TIME"].startswith(f"{GranuleId.parse(granule.name).time:%Y-%m-%dT%H:%M:%S}")


def test_nasa_tags_follow_from_real_fmask(shared_data: Path) -> None:
    """The same formulas reproduce the tags of NASA's own files."""
    for path in sorted((shared_data / "fmask").rglob("*Fmask.tif")):
        with rasterio.open(path) as source:
            mask, tags = source.read(1), source.tags()
        assert int(tags["cloud_coverage"]) == fm.cloud_cover(mask)
        assert int(tags["spatial_coverage"]) == fm.spatial_coverage(mask)


def test_items_have_the_shape_of_cmr_stac(shared_data: Path, tiny_archive: Archive) -> None:
    """Items bear exactly the property keys of a recorded CMR-STAC answer, no proj, no platform, no asset type, and
    every asset they name exists under the recorded key."""
    answer = json.loads((shared_data / "stac" / "cmr-stac" / "land_process_post.json").read_text())
    real = answer["features"][0]
    for item in json.loads(tiny_archive.items.read_text())["features"]:
        assert set(item["properties"]) == set(real["properties"])
        assert item["stac_extensions"] == real["stac_extensions"]
        sensor = GranuleId.parse(item["id"]).sensor
        assert list(item["assets"]) == [*BAND_FILES[sensor].values(), "Fmask"]
        if sensor == "S30":
            assert set(item["assets"]) <= set(real["assets"])
        for asset in item["assets"].values():
            assert set(asset) == {"href", "title", "roles"}
            assert (tiny_archive.items.parent / asset["href"]).is_file()


def test_footprints_are_the_pixels_with_data(tiny_archive: Archive) -> None:
    """A footprint, projected back, covers the area of the valid pixels within 2 %, counter-clockwise."""
    for item in json.loads(tiny_archive.items.read_text())["features"]:
        name = GranuleId.parse(item["id"])
        grid = tile_grid(name.tile)
        outline = shapely.geometry.shape(item["geometry"])
        assert outline.exterior.is_ccw
        corners = np.array(outline.exterior.coords)
        x, y = project(grid.zone, corners[:, 0], corners[:, 1])
        pixels = (read(tiny_archive.root / item["id"], "fmask") != fm.FILL).sum()
        assert shapely.Polygon(np.stack([x, y], 1)).area / 900 == pytest.approx(pixels, rel=0.02)


def test_the_static_catalogue_and_geoparquet_hold_the_same_items(tiny_archive: Archive) -> None:
    """pystac walks the catalogue to the same items and existing files; GeoParquet gives them back too."""
    collection = {item["id"]: item for item in json.loads(tiny_archive.items.read_text())["features"]}
    walked = {item.id: item for item in pystac.Catalog.from_file(str(tiny_archive.catalog)).get_items(recursive=True)}
    assert walked.keys() == collection.keys()
    for name, item in walked.items():
        assert item.collection_id == collection[name]["collection"]
        for key, asset in item.assets.items():
            assert asset.href == f"../../{name}/{name}.{key}.tif" or Path(str(asset.get_absolute_href())).is_file()
    table = pq.read_table(tiny_archive.geoparquet)
    assert b"geo" in (table.schema.metadata or {})
    for row in table.to_pylist():
        item = collection[row["id"]]
        hrefs = {key: asset["href"] for key, asset in row["assets"].items() if asset is not None}
        assert hrefs == {key: asset["href"] for key, asset in item["assets"].items()}
        assert row["eo:cloud_cover"] == item["properties"]["eo:cloud_cover"]
        assert f"{row['datetime']:%Y-%m-%dT%H:%M:%S.000Z}" == item["properties"]["datetime"]
        assert shapely.from_wkb(row["geometry"]).equals_exact(shapely.geometry.shape(item["geometry"]), 1e-9)


def test_land_cover_is_that_of_the_pixels(tiny_archive: Archive) -> None:
    """Fractions counted from the map under a cell agree with the true fractions; the map carries WorldCover's codes."""
    truth = pq.read_table(tiny_archive.truth).to_pylist()
    assert len(truth) == 2 + 2  # whole 256-px cells of both extents
    with rasterio.open(tiny_archive.land_cover) as source:
        classes, inverse = source.read(1), ~source.transform
        assert source.crs.to_epsg() == 4326
        assert source.nodata == 0
        assert source.overviews(1)
    assert set(np.unique(classes)) <= {0, 10, 20, 30, 40, 50, 60, 70, 80, 90}
    for row in truth:
        grid = tile_grid(row["tile"])
        span = np.arange(256) + 0.5
        x, y = grid.xy(row["cell_row"] * 256 + span[:, None], row["cell_col"] * 256 + span[None, :])
        lon, lat = unproject(grid.zone, *np.broadcast_arrays(x, y))
        col, line = inverse.a * lon + inverse.c, inverse.e * lat + inverse.f
        under = classes[np.floor(line).astype(int), np.floor(col).astype(int)]
        for code in (10, 30, 40, 80):
            assert (under == code).mean() == pytest.approx(row[f"lc_{code}"], abs=0.02)
        assert sum(row[key] for key in row if key.startswith("lc_")) == pytest.approx(1)


def test_weather_is_cf_and_covers_the_archive(tiny_archive: Archive) -> None:
    """Temperature and precipitation per month on a regular grid around the extents, warm in July, cold on heights."""
    west, south, east, north = archive_bounds(tiny_archive.spec)
    with xr.open_dataset(tiny_archive.weather) as data:
        assert data.attrs["Conventions"] == "CF-1.8"
        assert data["tas"].attrs["units"] == "degC"
        assert data["pr"].attrs["units"] == "mm"
        assert data["tas"].dims == ("time", "lat", "lon")
        assert data.sizes["time"] == 12
        assert data.lon.min() <= west
        assert data.lon.max() >= east
        assert data.lat.min() <= south
        assert data.lat.max() >= north
        assert float(data["tas"][6].mean() - data["tas"][0].mean()) > 12
        heights = np.corrcoef(data["orog"].values.ravel(), data["tas"][0].values.ravel())[0, 1]
        assert heights < -0.9
        assert (data["pr"] >= 0).all()


def test_snow_follows_the_weather(tiny_archive: Archive) -> None:
    """More of the ground is under snow in the coldest month's granules than in the warmest month's."""
    share = {}
    for granule in granules(tiny_archive):
        code = read(granule, "fmask").astype(np.uint8)
        clear = fm.clear(code)
        if clear.mean() > 0.2:
            month = GranuleId.parse(granule.name).time.month
            share[month] = max(share.get(month, 0.0), float((code[clear] >> 4 & 1).mean()))
    winter = max((share[month] for month in share if month in (12, 1, 2, 3)), default=1.0)
    summer = max((share[month] for month in share if month in (6, 7, 8)), default=0.0)
    assert winter > summer


def test_the_truth_is_what_a_clear_pixel_shows(tiny_archive: Archive) -> None:
    """On far-from-cloud pixels of a granule the delivered reflectance differs from the truth by haze and noise only;
    under clouds the truth stays a surface."""
    checked = 0
    for granule in granules(tiny_archive):
        name = GranuleId.parse(granule.name)
        truth = truth_surface(tiny_archive, name.tile, name.time.date())
        code = read(granule, "fmask").astype(np.uint8)
        clear, cloud = fm.clear(code), (code != fm.FILL) & (code & 2 != 0)
        assert truth.shape == (6, *code.shape)
        if clear.mean() < 0.3:
            continue
        checked += 1
        red = read(granule, "red").astype(float) - truth[BANDS.index("red")]
        assert abs(np.median(red[clear])) < 60
        if cloud.mean() > 0.05:
            assert np.median(red[cloud]) > 1000
    assert checked >= 3


def test_both_sensors_come_at_their_revisit(tmp_path: Path) -> None:
    """From one track Sentinel-2 returns every 5 days and Landsat every 8; ids bear the sensing time of their pass."""
    spec = replace(SMALL, per_year=None)
    for sensor, days in (("S30", 5), ("L30", 8)):
        planned = [p for p in plan_granules(spec) if p.overpass.sensor == sensor]
        tracks = {p.overpass.track for p in planned}
        assert tracks
        for track in tracks:
            gaps = np.diff([p.overpass.day for p in planned if p.overpass.track == track])
            assert set(gaps.tolist()) == {days}
        assert all(9 <= p.time.hour <= 11 for p in planned)  # mid-morning at 9.6° E


def test_the_demo_is_small_and_lies_in_its_region() -> None:
    """At most 40 granules, of both sensors and years, within DEMO_REGION; the benchmark holds whole tiles."""
    spec = demo_spec()
    planned = plan_granules(spec)
    assert len(planned) <= 40
    assert {p.overpass.sensor for p in planned} == {"L30", "S30"}
    assert {p.time.year for p in planned} == {2022, 2023}
    west, south, east, north = archive_bounds(spec)
    assert DEMO_REGION[0] <= west
    assert DEMO_REGION[1] <= south
    assert DEMO_REGION[2] >= east
    assert DEMO_REGION[3] >= north
    assert all(benchmark_spec().extent(tile) == Extent() for tile in benchmark_spec().tiles)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiles": ("99XXX",)}, "not an MGRS tile"),
        ({"tiles": ()}, "at least one tile"),
        ({"years": (1999,)}, "must lie in 2013"),
        ({"faults": ("gremlins",)}, "unknown faults"),
        ({"extents": {"10SFE": Extent()}}, "not among the tiles"),
        ({"per_year": 0}, "at least 1"),
    ],
)
def test_a_wrong_spec_is_refused(change: dict[str, object], message: str) -> None:
    """Each mistake is named when the spec is made."""
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **{"extents": {}, **change})  # type: ignore[arg-type]


def test_an_extent_outside_the_tile_is_refused() -> None:
    """Extents lie within the 3660 × 3660 pixels."""
    with pytest.raises(InputError, match="does not lie within"):
        Extent(row=3600, col=0, height=100, width=100)


def test_simulate_builds_what_the_command_asks_for(tmp_path: Path) -> None:
    """The library side of the command takes a tile, years, an extent and faults by name."""
    archive = simulate(
        tmp_path / "x", tiles=["10SFE"], years=[2021], seed=3, extent=(0, 0, 64, 64), per_year=1, faults=["html_page"]
    )
    assert archive.spec.tiles == ("10SFE",)
    (granule,) = granules(archive)
    assert (granule / f"{granule.name}.B02.tif").read_bytes().startswith(b"<!DOCTYPE html>")


def test_a_tile_in_the_south_lies_on_negative_northings(tmp_path: Path) -> None:
    """South of the equator everything works too, in EPSG:326zz; January is warmer than July."""
    archive = simulate(tmp_path / "x", tiles=["55GEN"], years=[2021], extent=(0, 0, 64, 64), per_year=1)
    with rasterio.open(next(archive.root.glob("*/*Fmask.tif"))) as source:
        assert source.crs.to_epsg() == 32655
        assert source.bounds.top < 0
    with xr.open_dataset(archive.weather) as data:
        assert float(data["tas"][0].mean()) > float(data["tas"][6].mean())


def test_no_pass_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extent that no swath touches in the years makes no archive."""
    monkeypatch.setattr("geofm_pipeline.simulator.archive.plan_granules", lambda _spec: [])
    with pytest.raises(NothingFoundError, match="no overpass"):
        build_archive(SMALL, tmp_path / "x")


def test_the_demo_is_cached_where_the_caller_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """demo_archive builds below the given folder, else below XDG_CACHE_HOME, and finds it again."""
    monkeypatch.setattr("geofm_pipeline.simulator.demo.demo_spec", lambda: replace(SMALL, per_year=1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert demo_archive().root.parent == tmp_path / "cache" / "geofm"
    assert demo_archive(tmp_path / "mine").root.parent == tmp_path / "mine"
    said: list[str] = []
    demo_archive(progress=said.append)
    assert said == []


def test_dates_outside_the_granules_have_a_truth(tiny_archive: Archive) -> None:
    """The truth exists for every day, also without a pass: fields turn from winter to summer."""
    winter = truth_surface(tiny_archive, "32TNR", date(2022, 1, 20))
    summer = truth_surface(tiny_archive, "32TNR", date(2022, 7, 20))
    assert np.median(summer[3]) > 1.2 * np.median(winter[3])
