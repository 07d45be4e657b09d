"""Promises of screening by granule."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.errors import BlockReadError, InputError
from geofm_pipeline.fmask_counts import COUNTS, SCREENING, cell_code_counts, screen_granule, screen_granules
from geofm_pipeline.hls import fmask
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.scenes import SCENES, SceneRef, scene_refs
from geofm_pipeline.screening import ScreenBatch, Screening
from geofm_sampling.unit import cells_per_side, pack_units

if TYPE_CHECKING:
    from tests.pipeline.reader.conftest import RangeServer

Trusted = Callable[[str, int, int, int], NDArray[np.generic]]
HASTY = Access(attempts=2, first_wait_s=0.01, timeout_s=1.0, in_flight=4, requests_per_second=1e5)
RULE = fmask.DEFAULT_RULE


def scene_table(hrefs: dict[str, str]) -> pa.Table:
    """SCENES of granule id → folder or URL that holds its files; '' where the Fmask is missing."""
    ids = sorted(hrefs, key=lambda name: (GranuleId.parse(name).tile, GranuleId.parse(name).time))
    parsed = [GranuleId.parse(name) for name in ids]
    columns: dict[str, list[Any]] = {
        "granule_id": ids,
        "sensor": [granule.sensor for granule in parsed],
        "tile": [granule.tile for granule in parsed],
        "time": [granule.time for granule in parsed],
        "cloud_cover": [0.0] * len(ids),
        "footprint": [b""] * len(ids),
        "href_template": [f"{hrefs[name]}/{{id}}.{{band}}.tif" for name in ids],
        "hrefs": [[] for _ in ids],
        "missing": [[] if hrefs[name] else ["Fmask"] for name in ids],
    }
    return SCENES.check(pa.table(columns, schema=SCENES.schema()))


def all_units(tile: str, size: int, year: int = 2022) -> NDArray[np.uint64]:
    side = cells_per_side(size)
    row, col = np.divmod(np.arange(side * side), side)
    return pack_units(tile=tile, chip_size=size, cell_row=row, cell_col=col, year=year, season=2)


def plain_counts(pixels: NDArray[np.uint8], size: int) -> dict[str, NDArray[np.int64]]:
    """Counts per cell the long way."""
    side = pixels.shape[0] // size
    cells = pixels[: side * size, : side * size].reshape(side, size, side, size).swapaxes(1, 2)
    data = cells != 255
    flags = {
        "data": data,
        "clear": data & (cells & 0b1110 == 0),
        "snow": data & (cells & 0b10000 != 0),
        "water": data & (cells & 0b100000 != 0),
    }
    return {name: flag.sum(axis=(2, 3)).ravel() for name, flag in flags.items()}


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    size=st.sampled_from([64, 128, 256]),
    seed=st.integers(0, 99),
)
def test_code_counts_are_exact(shape: tuple[int, int], size: int, seed: int) -> None:
    """Every pixel counts once for the image, and once for its cell if the cell is whole."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    whole, cells = cell_code_counts(pixels, size)
    np.testing.assert_array_equal(whole, np.bincount(pixels.ravel(), minlength=256))
    rows, cols = shape[0] // size, shape[1] // size
    assert cells.shape == (rows * cols, 256)
    for number in range(rows * cols):
        row, col = divmod(number, cols)
        cell = pixels[row * size : (row + 1) * size, col * size : (col + 1) * size]
        np.testing.assert_array_equal(cells[number], np.bincount(cell.ravel(), minlength=256))


@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_granule_counts_as_plain_numpy_does(scenes: tuple[SceneRef, ...], trusted: Trusted, size: int) -> None:
    """Data, clear, snow and water of every cell, and the granule's own tags, from one read."""
    pixels = trusted(scenes[0].fmask, 0, 0, 3660).view(np.uint8)
    row = screen_granule(scenes[0], tile="10SFE", chip_size=size, rule=RULE, source=ArchiveSource())
    assert (row.state, row.read, row.bytes) == ("ok", True, Path(scenes[0].fmask).stat().st_size)
    assert row.counts is not None
    for name, counts in plain_counts(pixels, size).items():
        np.testing.assert_array_equal(row.counts[name], counts)
    assert row.cloud_cover == fmask.cloud_cover(pixels)
    assert row.spatial_coverage == fmask.spatial_coverage(pixels)


def test_another_rule_counts_other_pixels(scenes: tuple[SceneRef, ...], trusted: Trusted) -> None:
    """The mask rule is an argument."""
    pixels = trusted(scenes[0].fmask, 0, 0, 3584)
    rule = fmask.MaskRule(bits=("cloud", "snow"))
    row = screen_granule(scenes[0], tile="10SFE", chip_size=256, rule=rule, source=ArchiveSource())
    assert row.counts is not None
    assert row.counts["clear"].sum() == ((pixels != 255) & (pixels & 0b10010 == 0)).sum()


def test_real_fmask_tiles_reproduce_nasas_tags(shared_data: Path) -> None:
    """Cloud and spatial coverage of the two whole tiles equal the tags in their files."""
    paths = sorted((shared_data / "fmask").rglob("*.tif"))
    assert len(paths) == 2
    for path in paths:
        name = path.name.removesuffix(".Fmask.tif")
        scene = SceneRef(granule_id=name, sensor="L30", date=0, bands=("",) * 6, fmask=str(path))
        row = screen_granule(scene, tile=name[9:14], chip_size=256, rule=RULE, source=ArchiveSource())
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
        assert (row.cloud_cover, row.spatial_coverage) == (int(tags["cloud_coverage"]), int(tags["spatial_coverage"]))


def test_the_real_archive_gives_seven_clear_chips(shared_data: Path, trusted: Trusted, tmp_path: Path) -> None:
    """T10SFE has 7 chips of 64 px at least 80 % clear, as plain numpy counts; all-cloud T04VER has data and none."""
    names = ("HLS.L30.T10SFE.2019253T183445.v2.0", "HLS.L30.T04VER.2019182T213802.v2.0")
    folder = shared_data / "hls-archive"
    screening = Screening(scene_table({name: str(folder / name) for name in names}), cache=tmp_path, chip_size=64)
    first = (datetime(2019, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    clear = {}
    for name in names:
        units = all_units(name[9:14], 64, 2019)
        look = screening.look(units, season_start=first, season_end=first + 364, last_day=first + 364, reach_days=0)
        assert look.num_rows == units.size
        clear[name] = look["clear"].to_numpy()
        plain = plain_counts(trusted(str(folder / name / f"{name}.Fmask.tif"), 0, 0, 3660).view(np.uint8), 64)
        np.testing.assert_array_equal(clear[name] * 4096, plain["clear"])
        np.testing.assert_array_equal(look["covered"].to_numpy() * 4096, plain["data"])
    assert [(clear[name] >= 0.8).sum() for name in names] == [7, 0]
    table = screening.granules().to_pydict()
    assert table["cloud_cover"] == [100.0, 0.0]
    assert table["spatial_coverage"] == [1.0, 0.0]


def copied(scenes: tuple[SceneRef, ...], folder: Path) -> dict[str, str]:
    for scene in scenes:
        shutil.copy(scene.fmask, folder)
    return {scene.granule_id: str(folder) for scene in scenes}


class Mapper:
    """Counts the tasks, pickles them and gives results in reverse order, as a cluster may."""

    def __init__(self) -> None:
        self.batches: list[ScreenBatch] = []

    def __call__(self, function: Callable[[Any], Any], arguments: Sequence[Any], /) -> Iterator[Any]:
        self.batches += arguments
        tasks = [pickle.loads(pickle.dumps((function, argument))) for argument in reversed(arguments)]
        return iter([call(argument) for call, argument in tasks])


def test_no_fmask_is_read_twice_and_none_that_no_unit_needs(scenes: tuple[SceneRef, ...], tmp_path: Path) -> None:
    """Granules are screened when a unit first needs them; a second run takes all from the cache."""
    table = scene_table(copied(scenes, tmp_path))
    days = [scene.date for scene in scenes]
    units, mapper = all_units("10SFE", 256), Mapper()
    screening = Screening(table, cache=tmp_path / "cache", chip_size=256, map_tasks=mapper)

    def look(of: Screening, units: NDArray[np.uint64], start: int, end: int, reach: int) -> pa.Table:
        return of.look(units, season_start=start, season_end=end, last_day=days[2], reach_days=reach)

    look(screening, units[:3], days[0], days[0], 0)
    assert (screening.stats.granules_read, len(mapper.batches)) == (1, 1)
    whole = look(screening, units, days[0], days[0] + 1, 400)
    assert (screening.stats.granules_read, len(mapper.batches)) == (3, 2)
    assert screening.stats.bytes_read == sum(Path(scene.fmask).stat().st_size for scene in scenes)
    for scene in scenes:
        (tmp_path / Path(scene.fmask).name).unlink()
    again = Screening(table, cache=tmp_path / "cache", chip_size=256, map_tasks=mapper)
    assert look(again, units, days[0], days[0] + 1, 400).equals(whole)
    assert (again.stats.granules_read, again.stats.granules_cached, len(mapper.batches)) == (0, 3, 2)
    assert {path.name for path in (tmp_path / "cache").rglob("*.*")} == {"10SFE.parquet"}


def test_chip_size_and_rule_are_part_of_the_key(scenes: tuple[SceneRef, ...], tmp_path: Path) -> None:
    """A cache never answers for another chip size or mask rule."""
    table = scene_table(copied(scenes[:1], tmp_path))
    for size, rule in ((256, RULE), (128, RULE), (256, fmask.MaskRule(bits=("cloud",)))):
        screening = Screening(table, cache=tmp_path / "cache", chip_size=size, rule=rule)
        screening.look(all_units("10SFE", size), season_start=0, season_end=99_999, last_day=99_999, reach_days=0)
        assert screening.stats.granules_read == 1


@settings(max_examples=20)
@given(data=st.data())
def test_a_look_has_exactly_the_granules_within_reach(
    scenes: tuple[SceneRef, ...], tmp_path_factory: pytest.TempPathFactory, trusted: Trusted, data: st.DataObject
) -> None:
    """Rows by brute force: start ≤ date ≤ min(end + reach, last day); without coverage only in the season."""
    cache = tmp_path_factory.getbasetemp() / "looks"
    folder = str(Path(scenes[0].fmask).parent)
    screening = Screening(scene_table({s.granule_id: folder for s in scenes}), cache=cache, chip_size=256)
    chosen = data.draw(st.lists(st.integers(0, 195), min_size=1, max_size=6, unique=True))
    units = all_units("10SFE", 256)[chosen]
    day = st.integers(scenes[0].date - 20, scenes[2].date + 20)
    start = np.array([data.draw(day) for _ in chosen])
    end = start + np.array([data.draw(st.integers(0, 40)) for _ in chosen])
    last_day, reach = data.draw(day), data.draw(st.integers(0, 60))
    look = screening.look(units, season_start=start, season_end=end, last_day=last_day, reach_days=reach)
    expected = []
    for scene in scenes:
        counts = plain_counts(trusted(scene.fmask, 0, 0, 3660).view(np.uint8), 256)
        for unit, cell, first, final in zip(units, chosen, start, end, strict=True):
            covered = counts["data"][cell] / 65_536
            within = first <= scene.date <= min(final + reach, last_day)
            if within and (covered > 0 or scene.date <= final):
                expected.append((unit, scene.date, scene.granule_id, covered, counts["clear"][cell] / 65_536))
    names = ("unit", "date", "granule_id", "covered", "clear")
    rows = list(zip(*(look[name].to_pylist() for name in names), strict=True))
    assert rows == sorted(expected)


def test_a_granule_that_cannot_be_read_is_a_state(
    scenes: tuple[SceneRef, ...], tmp_path: Path, cog_writer: Callable[..., None]
) -> None:
    """Missing, truncated and interpolated Fmasks: NaN shares in the look, the cause in the facts, the rest unharmed."""
    hrefs = copied(scenes, tmp_path)
    names = [*hrefs, "HLS.S30.T10SFE.2022240T183445.v2.0"]
    hrefs[names[0]] = ""
    cut = tmp_path / f"{names[1]}.Fmask.tif"
    cut.write_bytes(cut.read_bytes()[:-5000])
    pixels = np.full((3660, 3660), 64, dtype=np.uint8)
    pixels[50, 60] = 65
    cog_writer(tmp_path / f"{names[3]}.Fmask.tif", pixels)
    hrefs[names[3]] = str(tmp_path)
    screening = Screening(scene_table(hrefs), cache=tmp_path / "cache", chip_size=64)
    units = all_units("10SFE", 64)[-1:]
    window = {"season_start": 0, "season_end": 99_999, "last_day": 99_999, "reach_days": 0}
    look = screening.look(units, **window).to_pydict()
    assert sorted(look["granule_id"]) == sorted(names)
    good = {name: not np.isnan(share) for name, share in zip(look["granule_id"], look["clear"], strict=True)}
    assert good == {names[0]: False, names[1]: False, names[2]: True, names[3]: False}
    refused = screening.facts()["refused"]
    assert isinstance(refused, list)
    causes = {entry["granule"]: entry["cause"] for entry in refused}
    assert causes[names[0]] == "the granule has no such asset"
    assert causes[names[1]].startswith("the file is truncated")
    assert "the Fmask was interpolated" in causes[names[3]]
    screening.look(units, **window)
    assert screening.stats.granules_read == 4

    shutil.copy(scenes[1].fmask, tmp_path)
    again = Screening(scene_table(hrefs), cache=tmp_path / "cache", chip_size=64)
    repaired = again.look(units, **window).to_pydict()
    assert again.stats.granules_read == 2, "what could not be read is tried again by the next run, the rest is kept"
    assert not np.isnan(repaired["clear"][repaired["granule_id"].index(names[1])])


def test_a_transient_fault_stops_and_keeps_what_was_screened(
    scenes: tuple[SceneRef, ...], remote: tuple[SceneRef, ...], range_server: RangeServer, tmp_path: Path
) -> None:
    """A server that is down is no cloud: the run stops, a second one continues."""
    table = scene_table({scene.granule_id: range_server.url for scene in remote})
    path = "/" + Path(remote[2].fmask).name
    range_server.faults[path].append("always 503")
    units = all_units("10SFE", 256)

    def look() -> Screening:
        screening = Screening(table, cache=tmp_path, chip_size=256, source=ArchiveSource(HASTY))
        screening.look(
            units, season_start=scenes[0].date, season_end=scenes[0].date, last_day=scenes[2].date, reach_days=0
        )
        screening.look(
            units, season_start=scenes[0].date, season_end=scenes[2].date, last_day=scenes[2].date, reach_days=0
        )
        return screening

    with pytest.raises(BlockReadError, match="503") as caught:
        look()
    assert caught.value.transient
    range_server.faults[path].clear()
    assert look().stats.granules_cached == 1


def test_one_get_per_granule(
    scenes: tuple[SceneRef, ...], remote: tuple[SceneRef, ...], range_server: RangeServer
) -> None:
    """The whole Fmask by one request without a range, whatever the chip size."""
    source = ArchiveSource(HASTY)
    far = screen_granules(remote, tile="10SFE", chip_size=64, source=source)
    assert sorted(request.path for request in range_server.log) == sorted("/" + Path(s.fmask).name for s in remote)
    assert not any("range" in request.headers for request in range_server.log)
    assert far.equals(screen_granules(scenes, tile="10SFE", chip_size=64))
    assert SCREENING.check(far).num_rows == 3
    assert [len(far[name][0]) for name in COUNTS] == [57 * 57] * 4


def test_a_tile_without_granules_has_no_rows(scenes: tuple[SceneRef, ...], tmp_path: Path) -> None:
    """Units of a tile that the catalogue does not have are looked at in vain, not an error."""
    screening = Screening(scene_table(copied(scenes, tmp_path)), cache=tmp_path / "c", chip_size=256)
    window = {"season_start": 0, "season_end": 99_999, "last_day": 99_999, "reach_days": 0}
    assert screening.look(all_units("10SGE", 256), **window).num_rows == 0
    assert screening.look(np.zeros(0, dtype=np.uint64), **window).num_rows == 0
    assert screening.granules().num_rows == 0
    with pytest.raises(ValueError, match="chip size of 256 px"):
        screening.look(all_units("10SFE", 64), **window)


def test_a_damaged_cache_is_named(scenes: tuple[SceneRef, ...], tmp_path: Path) -> None:
    """A cache file that is no table gives its path and the remedy."""
    (tmp_path / "256px-rule14").mkdir()
    (tmp_path / "256px-rule14" / "10SFE.parquet").write_bytes(b"not a table")
    screening = Screening(scene_table(copied(scenes, tmp_path)), cache=tmp_path, chip_size=256)
    with pytest.raises(InputError, match=r"10SFE\.parquet cannot be read .* delete this file"):
        screening.look(all_units("10SFE", 256), season_start=0, season_end=1, last_day=1, reach_days=0)


def test_scene_refs_follow_template_override_and_gap(scenes: tuple[SceneRef, ...]) -> None:
    """Hrefs come from the template, an override wins, a missing asset is ''."""
    table = scene_table({scenes[1].granule_id: "/archive"})
    table = table.set_column(7, "hrefs", pa.array([[("B8A", "/other.tif")]], type=SCENES.columns["hrefs"].type))
    table = table.set_column(8, "missing", pa.array([["B12"]], type=SCENES.columns["missing"].type))
    [scene] = scene_refs(table)
    name = scenes[1].granule_id
    assert scene.fmask == f"/archive/{name}.Fmask.tif"
    assert scene.bands[2:] == (f"/archive/{name}.B04.tif", "/other.tif", f"/archive/{name}.B11.tif", "")
    assert scene.date == scenes[1].date
