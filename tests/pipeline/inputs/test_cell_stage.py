"""Cells of a run: made tile by tile by any number of workers, continued after a kill, the same as all at once."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr

import geofm_pipeline.stages.cells as stage
from geofm_pipeline.card import Card
from geofm_pipeline.cells import owned_cells
from geofm_pipeline.cluster import InProcess, open_runner
from geofm_pipeline.covariates import land_cover_fractions, land_cover_names, weather_monthly
from geofm_pipeline.covariates.tiles import MadeTiles, TileFacts, TileTask
from geofm_pipeline.errors import InputError, NothingFoundError
from geofm_pipeline.progress import Progress
from geofm_pipeline.raster import write_cog
from geofm_pipeline.region import parse_region
from geofm_pipeline.stages.cells import covariate_names, make_cells
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.workspace import Workspace
from geofm_pipeline.years import parse_years
from geofm_sampling import Design

TILES = ("32UNU", "32UNV", "32UPU", "32UPV", "33UUP")
REGION = parse_region("8.7,47.6,12.4,49.4")
DESIGN = Design(samples=10, years=(2022,), chip_size=256, timesteps=2)


def scenes_of(tiles: Sequence[str]) -> pa.Table:
    """The columns of SCENES that cells depend on: one granule a month, the first half of the tiles clearer."""
    rows = [
        {"tile": tile, "time": datetime(2022, month, 3, 10, tzinfo=UTC), "cloud_cover": 10.0 * number + month}
        for number, tile in enumerate(sorted(tiles))
        for month in range(1, 13)
    ]
    schema = pa.schema([("tile", pa.string()), ("time", pa.timestamp("ms", tz="UTC")), ("cloud_cover", pa.float32())])
    return pa.Table.from_pylist(rows, schema=schema)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A land-cover map of patches, classes 10, 30 and 80 with 50 in the east only, and a year of monthly weather."""
    folder = tmp_path_factory.mktemp("sources")
    coarse = np.random.default_rng(5).choice(np.array([10, 30, 80], dtype=np.uint8), (60, 100))
    coarse[:, 80:] = 50
    pixels = np.kron(coarse, np.ones((10, 10), dtype=np.uint8))
    write_cog(folder / "map.tif", pixels, epsg=4326, transform=(0.005, 0, 8.0, 0, -0.005, 50.0))
    lat, lon = np.arange(46.0, 52.0, 0.25), np.arange(6.0, 16.0, 0.25)
    grid = np.sin(lat)[:, None] + np.cos(lon)[None, :] + np.arange(12.0)[:, None, None]
    data = xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), grid, {"units": "degC"}),
            "pr": (("time", "lat", "lon"), grid + 3, {"units": "mm/day"}),
        },
        {"time": pd.date_range("2022-01-01", periods=12, freq="MS"), "lat": lat, "lon": lon},
    )
    data.to_netcdf(folder / "wx.nc", engine="h5netcdf")
    return str(folder / "map.tif"), str(folder / "wx.nc")


def _inputs(sources: tuple[str | None, str | None], **changes: Any) -> Inputs:
    plain = Inputs(
        region=REGION, years=parse_years(2022), catalog="items.json", land_cover=sources[0], weather=sources[1]
    )
    return replace(plain, **changes)


def _make(
    out: Path,
    inputs: Inputs,
    *,
    runner: Any = None,
    tiles: Sequence[str] = TILES,
    design: Design = DESIGN,
) -> tuple[pa.Table, Card]:
    space = Workspace(root=out)
    space.work.mkdir(parents=True, exist_ok=True)
    card = Card(space.card)
    progress = Progress(io.StringIO())
    return make_cells(space, inputs, design, scenes_of(tiles), runner, progress, card), card


def _files(out: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (out / "work" / "cells").rglob("*.*")}


class _Backwards(InProcess):
    """Runs the last argument first."""

    def run(self, task: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for position in reversed(range(len(arguments))):
            yield position, task(arguments[position])


def test_cells_made_tile_by_tile_equal_cells_made_at_once(tmp_path: Path, sources: tuple[str, str]) -> None:
    """Ownership, land cover and weather are those of the whole table, whatever the tile; clear shares are added."""
    found, card = _make(tmp_path, _inputs(sources))
    whole = owned_cells(TILES, REGION, chip_size=256)
    wanted = land_cover_fractions(whole.table, sources[0]).table
    wanted = weather_monthly(wanted, sources[1], years=parse_years(2022)).table
    assert set(found.column_names) == {*wanted.column_names, "cl_mean"}
    for name in wanted.column_names:
        assert found[name].combine_chunks().equals(wanted[name].combine_chunks()), name
    share = dict(zip(found["tile"].to_pylist(), found["cl_mean"].to_pylist(), strict=True))
    assert share == {tile: pytest.approx(0.935 - 0.1 * n) for n, tile in enumerate(sorted(TILES))}
    assert land_cover_names(found)[80] == "water"
    frame = card.section("frame")
    assert {**whole.report.as_dict(), "area_km2": pytest.approx(whole.report.area_km2)}.items() <= frame.items()
    assert card.section("inputs")["land_cover_legend"] == "ESA WorldCover, by its codes"
    assert card.section("inputs")["land_cover_note"] == card.section("inputs")["weather_note"] == ""


def test_files_depend_on_neither_workers_nor_order(
    tmp_path: Path, sources: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, backwards, one tile per task and on two Dask workers: the same bytes and the same table."""
    monkeypatch.setattr(stage, "TILES_PER_TASK", 2)
    one, _ = _make(tmp_path / "a", _inputs(sources))
    monkeypatch.setattr(stage, "TILES_PER_TASK", 1)
    other, _ = _make(tmp_path / "b", _inputs(sources), runner=_Backwards())
    with open_runner(workers=2, scheduler=None, scratch=tmp_path / "dask") as runner:
        third, _ = _make(tmp_path / "c", _inputs(sources), runner=runner)
    assert one.equals(other, check_metadata=True)
    assert one.equals(third, check_metadata=True)
    assert _files(tmp_path / "a") == _files(tmp_path / "b") == _files(tmp_path / "c")
    assert {f"{tile}.parquet" for tile in TILES} <= set(_files(tmp_path / "a"))


class _Stopped(BaseException):
    """Ctrl-C, but for tests."""


def test_a_stopped_run_continues_with_the_missing_tiles(
    tmp_path: Path, sources: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before is not made again, and the table is that of a run that was never stopped."""
    monkeypatch.setattr(stage, "TILES_PER_TASK", 1)
    real, made = stage.make_tiles, list[str]()

    def counted(tasks: Sequence[TileTask]) -> MadeTiles:
        if len(made) == 3:
            raise _Stopped
        made.extend(task.tile for task in tasks)
        return real(tasks)

    monkeypatch.setattr(stage, "make_tiles", counted)
    with pytest.raises(_Stopped):
        _make(tmp_path / "a", _inputs(sources))
    before = _files(tmp_path / "a")
    assert sum(name in {f"{tile}.parquet" for tile in TILES} for name in before) == 3
    made.append("the fourth is allowed now")
    found, _ = _make(tmp_path / "a", _inputs(sources))
    assert sorted(made[:3] + made[4:]) == sorted(TILES)
    monkeypatch.setattr(stage, "make_tiles", real)
    whole, _ = _make(tmp_path / "b", _inputs(sources))
    assert found.equals(whole, check_metadata=True)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_a_killed_process_leaves_whole_files_only(tmp_path: Path, sources: tuple[str, str]) -> None:
    """SIGKILL in the middle of the tiles: each file there is complete, and the next run ends with the same table."""
    script = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_cell_stage as t, geofm_pipeline.covariates.tiles as tiles, geofm_pipeline.stages.cells as stage
        from pathlib import Path
        real = tiles.make_tile
        def slow(task, archive):
            done = real(task, archive); print(task.tile, flush=True); time.sleep(0.5); return done
        tiles.make_tile = slow
        t._make(Path({str(tmp_path / "a")!r}), t._inputs({sources!r}))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    there = sorted((tmp_path / "a" / "work" / "cells").glob("*.parquet"))
    assert 2 <= len(there) < len(TILES)
    stamps = {path: path.stat().st_mtime_ns for path in there}
    found, _ = _make(tmp_path / "a", _inputs(sources))
    assert {path: path.stat().st_mtime_ns for path in there} == stamps
    assert found.equals(_make(tmp_path / "b", _inputs(sources))[0], check_metadata=True)


def test_only_what_changed_is_made_again(tmp_path: Path, sources: tuple[str, str]) -> None:
    """Nothing for the same inputs, all for other years or another chip size, one tile more for one tile more."""
    folder = tmp_path / "work" / "cells"

    def made(inputs: Inputs, **options: Any) -> set[str]:
        before = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")} if folder.exists() else {}
        time.sleep(0.01)
        _make(tmp_path, inputs, **options)
        return {p.stem for p in folder.glob("*.parquet") if before.get(p) != p.stat().st_mtime_ns}

    near = ("32UNU", "32UNV", "56HLH")  # the last one lies in Australia, near none of the others
    earth = replace(_inputs(sources), region=parse_region("-180,-80,180,80"))
    assert made(earth, tiles=near) == set(near)
    assert made(earth, tiles=near) == set()
    assert made(earth, tiles=(*near, "56HLJ")) == {"56HLJ", "56HLH"}  # a neighbour may take ground
    assert made(earth, tiles=near) == {"56HLH"}
    assert not (folder / "56HLJ.parquet").exists()
    assert made(replace(earth, years=parse_years("2021-2022")), tiles=near) == set(near)
    assert made(earth, tiles=near, design=replace(DESIGN, chip_size=128)) == set(near)
    os.utime(sources[0], ns=(1, time.time_ns()))
    assert made(earth, tiles=near, design=replace(DESIGN, chip_size=128)) == {"32UNU", "32UNV"}


def test_a_torn_file_is_made_again(tmp_path: Path, sources: tuple[str, str]) -> None:
    """A file that was cut short by hand or by a disk counts as missing."""
    whole, _ = _make(tmp_path, _inputs(sources))
    path = tmp_path / "work" / "cells" / "32UNU.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert _make(tmp_path, _inputs(sources))[0].equals(whole)
    assert path.read_bytes() == content


def test_a_task_returns_a_small_record(tmp_path: Path, sources: tuple[str, str]) -> None:
    """Facts of a tile are under 2 kB, tasks under 4 kB besides 8 kB of addresses, whatever the number of cells."""
    sizes: list[int] = []

    class Weighing(InProcess):
        def run(self, task: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            for position, result in super().run(task, arguments):
                tiles = len(arguments[position]) if task is stage.make_tiles else 1
                sizes.append(len(pickle.dumps(result)) // tiles)
                assert len(pickle.dumps(arguments[position])) < 8192 + 4096 * tiles
                yield position, result

    _make(tmp_path, _inputs(sources), runner=Weighing(), design=replace(DESIGN, chip_size=64))
    assert max(sizes) < 2048


def test_without_sources_cells_have_their_clear_share_only(tmp_path: Path) -> None:
    """No land cover, no weather: the cells of the region, none dropped."""
    found, card = _make(tmp_path, _inputs((None, None)))
    assert covariate_names(found) == ["cl_mean"]
    assert found.num_rows == owned_cells(TILES, REGION, chip_size=256).table.num_rows
    assert card.section("inputs")["land_cover_legend"] is None


def test_ground_without_land_cover_leaves_the_frame_and_is_said(tmp_path: Path, sources: tuple[str, str]) -> None:
    """Cells that the map does not show at all are dropped and counted; a map of another place is refused."""
    half = tmp_path / "half.tif"
    write_cog(half, np.full((600, 500), 10, np.uint8), epsg=4326, transform=(0.005, 0, 8.0, 0, -0.005, 50.0))
    found, card = _make(tmp_path / "a", _inputs((str(half), None)))
    whole = owned_cells(TILES, REGION, chip_size=256).table
    assert np.asarray(found["lon"]).max() < 10.6
    assert card.section("frame")["out_of_frame_cells"] == whole.num_rows - found.num_rows > 0
    assert "have no land cover in the map" in str(card.section("inputs")["land_cover_note"])
    away = replace(_inputs((str(half), None)), region=parse_region("-10,-10,10,10"))
    with pytest.raises(InputError, match="no land cover in the region's cells"):
        _make(tmp_path / "b", away, tiles=("32MKV",))


def test_weather_of_part_of_the_region_gives_a_class_of_its_own(tmp_path: Path, sources: tuple[str, str]) -> None:
    """Cells beyond the weather are NaN and the note has their number and share; none covered is an error."""
    with xr.open_dataset(sources[1], engine="h5netcdf") as data:
        data.sel(lon=slice(6, 10)).to_netcdf(tmp_path / "west.nc", engine="h5netcdf")
        data.sel(lat=slice(51, 52)).to_netcdf(tmp_path / "north.nc", engine="h5netcdf")
    found, card = _make(tmp_path / "a", _inputs((None, str(tmp_path / "west.nc"))))
    unknown = np.isnan(np.asarray(found["wx_t07"]))
    assert (unknown == (np.asarray(found["lon"]) > 10.125)).all()
    share = 100 * unknown.mean()
    assert f"{unknown.sum():,} of {unknown.size:,} cells have no weather ({share:.2g} %)" in str(
        card.section("inputs")["weather_note"]
    )
    with pytest.raises(InputError, match="covers none of the region's cells"):
        _make(tmp_path / "b", _inputs((None, str(tmp_path / "north.nc"))))


def test_a_region_without_cells_is_nothing_found(tmp_path: Path) -> None:
    """No cell centre in the region: a message that names the region and the remedy."""
    with pytest.raises(NothingFoundError, match="widen the region"):
        _make(tmp_path, replace(_inputs((None, None)), region=parse_region("0,0,1,1")))


def test_files_explain_themselves(tmp_path: Path, sources: tuple[str, str]) -> None:
    """A tile's file has its key and facts in its metadata and the contract's sentences on its fields."""
    _make(tmp_path, _inputs(sources))
    schema = pq.read_schema(tmp_path / "work" / "cells" / "32UNU.parquet")
    metadata: dict[bytes, bytes] = schema.metadata or {}
    facts = TileFacts.from_json(metadata[b"geofm_cells_facts"].decode())
    assert facts.tile == "32UNU"
    assert facts.cover is not None
    assert set(facts.cover.codes) <= {10, 30, 50, 80}
