"""Monthly means are streamed: blocks, strips and workers change nothing; grids that are none are refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from geofm_pipeline.cells import owned_cells
from geofm_pipeline.cluster import InProcess, open_runner
from geofm_pipeline.covariates import weather_monthly, weather_months, weather_prepare
from geofm_pipeline.covariates.gridded import open_gridded
from geofm_pipeline.covariates.weather import tile_weather, weather_columns
from geofm_pipeline.covariates.weather_grid import LatLonAxes, between, local_cols, unturned
from geofm_pipeline.covariates.weather_months import choose_steps, find_variable, load_means, month_means
from geofm_pipeline.covariates.weather_parts import Part, grid_parts
from geofm_pipeline.covariates.weather_prepare import prepare_weather
from geofm_pipeline.errors import InputError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-84,180,84")
YEARS = parse_years("2021-2022")
TILES = ["32UNU", "32UPU", "31TDJ", "56HLH"]


def _daily(folder: Path, *, every: int = 1, lat: Any = None, lon: Any = None) -> str:
    """Two years of noise with gaps, a step every so many days, on a coarse grid of the Earth."""
    rng = np.random.default_rng(1)
    lat = np.arange(-88.0, 89.0, 4.0) if lat is None else lat
    lon = np.arange(0.0, 360.0, 4.0) if lon is None else lon
    time = pd.date_range("2021-01-01", "2022-12-31", freq=f"{every}D")
    values = rng.normal(10, 5, (time.size, lat.size, lon.size)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    data = xr.Dataset(
        {
            "tavg": (("time", "lat", "lon"), values, {"units": "degC"}),
            "prcp": (("time", "lat", "lon"), np.abs(values), {"units": "mm/day"}),
        },
        {"time": time, "lat": lat, "lon": lon},
    )
    path = folder / "daily.nc"
    data.to_netcdf(path, engine="h5netcdf")
    return str(path)


@pytest.fixture(scope="module")
def daily(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weather of the whole Earth every fifth day."""
    return _daily(tmp_path_factory.mktemp("daily"), every=5)


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """Cells of four tiles on two continents."""
    return owned_cells(TILES, EARTH, chip_size=256).table


def _months(table: pa.Table) -> NDArray[np.float32]:
    return np.stack([np.asarray(table[name]) for name in weather_columns()])


def test_means_are_those_of_pandas(daily: str) -> None:
    """The mean of all valid days of a month in both years, times the days of the month for precipitation."""
    with xr.open_dataset(daily, engine="h5netcdf") as plain:
        wanted = plain.groupby("time.month").mean().load()
    dataset = open_gridded(daily, option="--weather")
    for letter, name, factor in (("t", "tavg", 1.0), ("p", "prcp", np.array(weather_months.MONTH_DAYS)[:, None, None])):
        variable = find_variable([dataset], letter, daily)
        chosen, notes = choose_steps(variable, YEARS, daily)
        found = month_means(variable, chosen, Part(rows=(0, 45), cols=(0, 90)))
        np.testing.assert_allclose(found, wanted[name].values * factor, rtol=1e-4, atol=1e-4)
        assert all("days" in note for note in notes)  # a step every fifth day
    dataset.close()


def test_blocks_and_strips_change_no_bit(daily: str, cells: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps and a few rows at a time give the same cells as everything at once."""
    whole = _months(weather_monthly(cells, daily, years=YEARS).table)
    monkeypatch.setattr(weather_months, "BLOCK_BYTES", 1 << 15)
    monkeypatch.setattr(weather_prepare, "STRIP_POINTS", 500)
    assert np.array_equal(whole, _months(weather_monthly(cells, daily, years=YEARS).table), equal_nan=True)


def test_files_for_workers_hold_the_same_means(
    daily: str, cells: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means from files, made in this process or on Dask workers, equal those in memory; made once, they stay."""
    monkeypatch.setattr(weather_prepare, "STRIP_POINTS", 300)
    one = prepare_weather(tmp_path / "a", TILES, daily, years=YEARS, runner=InProcess())
    with open_runner(workers=2, scheduler=None, scratch=tmp_path / "dask") as runner:
        other = prepare_weather(tmp_path / "b", TILES, daily, years=YEARS, runner=runner)
    assert one.digest == other.digest
    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()} == {
        f.name: f.read_bytes() for f in (tmp_path / "b").iterdir()
    }
    assert len(list((tmp_path / "a").glob("*.npy"))) > 4
    means = [load_means(path) for path in other.files]
    whole = weather_monthly(cells, daily, years=YEARS).table
    for tile in TILES:
        here = np.asarray(whole["tile"].to_numpy(zero_copy_only=False)) == tile
        found, facts = tile_weather(cells.filter(pa.array(here)), means)
        assert np.array_equal(found, _months(whole)[:, here], equal_nan=True)
        assert facts.known == here.sum()

    def never(task: Any) -> None:
        raise AssertionError(task)

    monkeypatch.setattr(weather_prepare, "strip_means", never)
    again = prepare_weather(tmp_path / "a", TILES, daily, years=YEARS, runner=InProcess())
    assert again == one


SPANS = st.tuples(st.integers(0, 39), st.integers(1, 12))


@given(
    st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=6),
    st.one_of(st.none(), st.tuples(st.integers(1, 15), st.integers(1, 15))),
    st.integers(1, 400),
)
def test_parts_of_a_grid_share_no_chunk(
    spans: list[tuple[tuple[int, int], tuple[int, int]]], chunks: tuple[int, int] | None, most: int
) -> None:
    """Rectangles hold all that is needed, no point and no chunk twice, no chunk for nothing, and have a size limit."""
    needed = [Part(rows=(r, r + h), cols=(c, c + w)) for (r, h), (c, w) in spans]
    parts = grid_parts(needed, chunks=chunks, most=most)
    wanted, count = np.zeros((60, 60), dtype=bool), np.zeros((60, 60), dtype=int)
    for part in needed:
        wanted[slice(*part.rows), slice(*part.cols)] = True
    for part in parts:
        count[slice(*part.rows), slice(*part.cols)] += 1
    assert count.max() == 1
    assert count[wanted].all()
    if chunks is None:
        assert all(part.points <= most or part.rows[1] - part.rows[0] == 1 for part in parts)
        assert (count[~wanted.any(axis=1)] == 0).all()
        return
    high, wide = chunks

    def touched(rectangles: Sequence[Part]) -> list[set[tuple[int, int]]]:
        return [{(r // high, c // wide) for r in range(*part.rows) for c in range(*part.cols)} for part in rectangles]

    of_parts = touched(parts)
    assert sum(map(len, of_parts)) == len(set().union(*of_parts))
    assert set().union(*of_parts) == set().union(*touched(needed))
    assert all(part.points <= most or len(own) == 1 for part, own in zip(parts, of_parts, strict=True))


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60, unique=True), st.integers(1, 20), st.integers(1, 30))
def test_blocks_of_steps_end_with_chunks(steps: list[int], chunk: int, most: int) -> None:
    """All steps in order, no chunk in two blocks, no more than asked for unless one chunk has more."""
    index = np.array(sorted(steps))
    blocks = weather_months._blocks(index, chunk, most)
    assert [step for start, stop in blocks for step in range(start, stop)] == list(range(index.size))
    owners = [set((index[start:stop] // chunk).tolist()) for start, stop in blocks]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert all(stop - start <= most or len(own) == 1 for (start, stop), own in zip(blocks, owners, strict=True))


def test_only_rows_that_tiles_need_are_read(daily: str, tmp_path: Path) -> None:
    """Two tiles far apart need two runs of rows, not all between."""
    found = prepare_weather(tmp_path, ["32UNU", "56HLH"], daily, years=YEARS, runner=InProcess())
    strips = load_means(found.files[0]).strips
    assert sum(strip.months.shape[1] for strip in strips) <= 24
    assert len(strips) == 2


def test_memory_is_bounded_by_the_block_not_by_the_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two years of days of a 120 × 120 grid (84 MB as float64) are averaged within 20 MB."""
    source = _daily(tmp_path, lat=np.arange(40, 52, 0.1), lon=np.arange(0, 12, 0.1))
    monkeypatch.setattr(weather_months, "BLOCK_BYTES", 4 << 20)
    dataset = open_gridded(source, option="--weather")
    variable = find_variable([dataset], "t", source)
    chosen, _ = choose_steps(variable, YEARS, source)
    tracemalloc.start()
    month_means(variable, chosen, Part(rows=(0, 120), cols=(0, 120)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    dataset.close()
    assert peak < 20 << 20


LON = st.floats(-180, 180, width=32).map(float)


@given(
    st.lists(LON, min_size=1, max_size=20),
    st.sampled_from([(0.0, 2.5, 144), (-180.0, 2.5, 144), (-178.75, 2.5, 144), (100.0, 1.0, 60), (-30.0, -0.5, 40)]),
)
def test_columns_of_longitudes_by_hand(lon: list[float], grid: tuple[float, float, int]) -> None:
    """The grid point nearest to a longitude is at the rounded column, whatever turn, order and start of the axis."""
    axis = grid[0] + grid[1] * np.arange(grid[2])
    axes = LatLonAxes(np.array([0.0, 1.0]), axis)
    col = axes.cols(np.array(lon))
    inside = axes.inside(np.zeros(col.shape), col)
    for place, value, within in zip(col, lon, inside, strict=True):
        away = np.abs((axis - value + 180.0) % 360.0 - 180.0)
        assert within == (away.min() <= abs(grid[1]) / 2 + 1e-6) or abs(away.min() - abs(grid[1]) / 2) < 1e-4
        if within:
            assert away[round(place) % axis.size] <= away.min() + 1e-4


@given(arrays(np.float64, (6, 7), elements=st.floats(-50, 50)), st.floats(0, 5), st.floats(0, 6))
def test_between_grid_points_is_bilinear(grid: NDArray[np.float64], row: float, col: float) -> None:
    """Without gaps the value is the bilinear one, by the textbook."""
    r, c = min(int(row), 4), min(int(col), 5)
    a, b = row - r, col - c
    wanted = (1 - a) * ((1 - b) * grid[r, c] + b * grid[r, c + 1]) + a * (
        (1 - b) * grid[r + 1, c] + b * grid[r + 1, c + 1]
    )
    assert between(grid, np.array([row]), np.array([col]))[0] == pytest.approx(wanted, abs=1e-9)


def test_columns_near_the_seam_of_a_cyclic_grid() -> None:
    """Points on both sides of the seam get one run of columns; the docstring's example."""
    axes = LatLonAxes(np.array([0.0, 1.0]), np.arange(0, 360, 2.5))
    columns, places = local_cols(np.array([143.2, 0.5]), axes)
    assert columns.tolist() == [139, 140, 141, 142, 143, 0, 1, 2, 3, 4, 5]
    assert places.tolist() == pytest.approx([4.2, 5.5])


def test_longitudes_that_jump_at_180_are_in_order(cells: pa.Table, tmp_path: Path, daily: str) -> None:
    """A grid from 0 to 360 whose longitudes are written 0 … 180, -179 … -4 gives the same cells."""
    with xr.open_dataset(daily, engine="h5netcdf") as data:
        lon = data["lon"].values
        data.assign_coords(lon=np.where(lon > 180, lon - 360, lon)).to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    assert unturned(np.array([0.0, 90.0, 180.0, -90.0])).tolist() == [0, 90, 180, 270]
    one, other = (weather_monthly(cells, source, years=YEARS).table for source in (daily, str(tmp_path / "t.nc")))
    np.testing.assert_allclose(_months(one), _months(other), rtol=1e-5)


def _monthly(change: Callable[[xr.Dataset], xr.Dataset], path: Path) -> str:
    lat, lon = np.arange(30.0, 60.0), np.arange(0.0, 30.0)
    shape = (12, 30, 30)
    data = xr.Dataset(
        {
            "tas": (("time", "lat", "lon"), np.full(shape, 283.15), {"units": "K"}),
            "pr": (("time", "lat", "lon"), np.full(shape, 2.0), {"units": "mm/day"}),
        },
        {"time": pd.date_range("2021-01-01", periods=12, freq="MS"), "lat": lat, "lon": lon},
    )
    data["lat"].attrs["units"], data["lon"].attrs["units"] = "degrees_north", "degrees_east"
    change(data).to_netcdf(path, engine="h5netcdf")
    return str(path)


def _rain(units: str, value: float) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda data: data.assign(pr=(data["pr"] * 0 + value).assign_attrs(units=units))


def _metres(data: xr.Dataset) -> xr.Dataset:
    data = data.rename(lat="y", lon="x").assign_coords(y=np.arange(30) * 1e3, x=np.arange(30) * 1e3)
    data["y"].attrs["units"] = data["x"].attrs["units"] = "m"
    return data


def _shuffled(data: xr.Dataset) -> xr.Dataset:
    return data.isel(lat=[*range(15, 30), *range(15)])


def _beyond(data: xr.Dataset) -> xr.Dataset:
    return data.assign_coords(lat=data["lat"].assign_attrs() + 60)


def _calendar(data: xr.Dataset) -> xr.Dataset:
    stamps = xr.DataArray(np.arange(12) * 30.0, dims="time", attrs={"units": "days since 2021-01-01", "calendar": "x"})
    return data.assign_coords(time=stamps)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_metres, "is no latitude in degrees"),
        (_beyond, "is no latitude in degrees"),
        (_shuffled, "neither ascends nor descends"),
        (_calendar, "cannot be read"),
        (_rain("mm/day", -50.0), "which no place on Earth has"),
        (_rain("kg m-2 s-1", 2.0), "which no place on Earth has"),
        (_rain("", 2.0), "has units ''"),
    ],
)
def test_grids_that_cannot_be_right_are_refused(
    cells: pa.Table, tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], part: str
) -> None:
    """Projected grids, axes out of order, strange calendars, wrong units: the message names the file and a remedy."""
    source = _monthly(change, tmp_path / "wx.nc")
    with pytest.raises(InputError, match="--weather") as caught:
        weather_monthly(cells, source, years=YEARS)
    assert part in str(caught.value)
    assert source in str(caught.value)


@pytest.mark.parametrize(
    ("units", "value", "january"),
    [
        ("kg m-2 s-1", 2.0 / 86_400, 62.0),
        ("kg/m^2/s", 2.0 / 86_400, 62.0),
        ("mm day-1", 2.0, 62.0),
        ("mm d**-1", 2.0, 62.0),
        ("mm/d", 2.0, 62.0),
        ("m", 0.062, 62.0),
        ("mm", 62.0, 62.0),
        ("mm month-1", 62.0, 62.0),
        ("m of water equivalent", 0.062, 62.0),
    ],
)
def test_units_of_precipitation(tmp_path: Path, cells: pa.Table, units: str, value: float, january: float) -> None:
    """Every spelling that CF and its users write gives the millimetres of January."""
    found = weather_monthly(cells, _monthly(_rain(units, value), tmp_path / "wx.nc"), years=YEARS).table
    europe = np.asarray(found["lat"]) > 0
    assert np.asarray(found["wx_p01"])[europe] == pytest.approx(january, rel=1e-4)
    assert np.asarray(found["wx_t01"])[europe] == pytest.approx(10.0, abs=1e-3)


def test_rounding_below_zero_is_no_rain(cells: pa.Table, tmp_path: Path) -> None:
    """Packed precipitation of −0.001 mm per day is zero, not an error."""
    found = weather_monthly(cells, _monthly(_rain("mm/day", -0.001), tmp_path / "wx.nc"), years=YEARS).table
    assert np.nanmax(np.asarray(found["wx_p01"])) == np.nanmin(np.asarray(found["wx_p01"])) == 0.0


def test_real_daily_grids_ascend_and_real_climatologies_descend(shared_data: Path) -> None:
    """nClimGrid's latitudes ascend and NCEP's descend; in both Florida is over 15 °C warmer than North Dakota."""
    folder = shared_data / "weather"
    places = {tile: owned_cells([tile], EARTH, chip_size=256).table for tile in ("17RMM", "14TLT")}
    dataset = open_gridded(str(folder / "tavg-202201-grd-scaled.nc"), option="--weather")
    variable = find_variable([dataset], "t", "nclimgrid")
    axes = weather_months.variable_axes(variable)
    days = [np.flatnonzero(variable.steps.month == 1)] + [np.array([0])] * 11  # the file has two days of January
    means = month_means(variable, days, Part(rows=(0, axes.lat.size), cols=(0, axes.lon.size)))
    dataset.close()
    whole = weather_months.MonthlyMeans(axes=axes, strips=(weather_months.Strip(row=0, col=0, months=means),))
    fine, coarse = dict[str, float](), dict[str, float]()
    source = f"{folder / 'air.mon.ltm.nc'},{folder / 'precip.mon.ltm.nc'}"
    for tile, cells in places.items():
        fine[tile] = float(np.nanmean(whole.at(np.asarray(cells["lon"]), np.asarray(cells["lat"]))[0]))
        coarse[tile] = float(np.asarray(weather_monthly(cells, source, years=YEARS).table["wx_t01"]).mean())
    assert axes.lat[0] < axes.lat[-1]
    assert fine["17RMM"] > fine["14TLT"] + 15
    assert coarse["17RMM"] > coarse["14TLT"] + 15
