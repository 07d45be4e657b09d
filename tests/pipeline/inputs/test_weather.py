"""Monthly weather of cells is right whatever the unit, the grid, the order of latitudes and the time axis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from numpy.typing import NDArray
from servers.loopback import serving
from servers.maps import folder_app

from geofm_pipeline.cells import owned_cells
from geofm_pipeline.covariates import weather_monthly
from geofm_pipeline.errors import ArchiveError, InputError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-84,180,84")
Y2022 = parse_years(2022)
DAYS = np.array([31, 28.25, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """Cells near 9-12° E, 48° N."""
    return owned_cells(["32UNU", "32UPU"], EARTH, chip_size=256).table


def _temperature(lon: NDArray[Any], lat: NDArray[Any], month: NDArray[Any]) -> NDArray[Any]:
    """°C, linear in longitude and latitude, so that bilinear values are exact."""
    return 30 - 0.5 * lat + 0.1 * lon + 10.0 * np.sin((month - 4) * np.pi / 6)


def _rain(lon: NDArray[Any], lat: NDArray[Any], month: NDArray[Any]) -> NDArray[Any]:
    """mm per day."""
    return 0.2 + 0.02 * lat + 0.01 * lon + 0.1 * month + 0 * lon


def _dataset(
    *,
    time: NDArray[Any] | pd.DatetimeIndex | None = None,
    lat: NDArray[Any] | None = None,
    lon: NDArray[Any] | None = None,
    dims: tuple[str, str, str] = ("time", "lat", "lon"),
) -> xr.Dataset:
    stamps = pd.date_range("2022-01-01", periods=12, freq="MS") if time is None else time
    month = np.asarray(stamps.month if isinstance(stamps, pd.DatetimeIndex) else stamps)
    lat = np.arange(40, 60.1, 0.5) if lat is None else lat
    lon = np.arange(0, 20.1, 0.5) if lon is None else lon
    m, y, x = np.meshgrid(month, lat, lon, indexing="ij")
    data = xr.Dataset(
        {
            "t2m": (dims, _temperature(x, y, m), {"units": "degC", "standard_name": "air_temperature"}),
            "pr": (dims, _rain(x, y, m), {"units": "mm/day"}),
        },
        {dims[0]: stamps, dims[1]: lat, dims[2]: lon},
    )
    data[dims[1]].attrs["units"], data[dims[2]].attrs["units"] = "degrees_north", "degrees_east"
    return data


def _save(data: xr.Dataset, path: Path) -> str:
    if path.suffix == ".zarr":
        data.to_zarr(path, consolidated=False)
    else:
        data.to_netcdf(path, engine="scipy" if path.suffix == ".cdf" else "h5netcdf")
    return str(path)


def _check(cells: pa.Table, source: str, *, atol: float = 2e-3, rtol: float = 1e-4) -> str:
    found = weather_monthly(cells, source, years=Y2022)
    lon, lat = np.asarray(cells["lon"]), np.asarray(cells["lat"])
    for month in range(1, 13):
        warm, wet = (np.asarray(found.table[f"wx_{letter}{month:02d}"]) for letter in "tp")
        assert warm.dtype == np.float32
        np.testing.assert_allclose(warm, _temperature(lon, lat, np.array(month)), atol=atol)
        wanted = _rain(lon, lat, np.array(month)) * DAYS[month - 1]
        np.testing.assert_allclose(wet, wanted, rtol=rtol, atol=atol)
    assert found.table.select(cells.column_names).equals(cells)
    return found.note


@pytest.mark.parametrize("suffix", ["nc", "cdf", "zarr"])
@pytest.mark.parametrize("flip", [True, False])
def test_netcdf_3_and_4_and_zarr_give_the_same_months(cells: pa.Table, tmp_path: Path, suffix: str, flip: bool) -> None:
    """Every format and either order of latitudes gives the exact linear field."""
    data = _dataset()
    data = data.isel(lat=slice(None, None, -1)) if flip else data
    assert _check(cells, _save(data, tmp_path / f"wx.{suffix}")) == ""


@pytest.mark.parametrize(
    ("name", "units", "change"),
    [
        ("t2m", "K", lambda v: v + 273.15),
        ("t2m", "degree_Celsius", lambda v: v),
        ("t2m", "°F", lambda v: v * 1.8 + 32),
        ("pr", "kg m-2 s-1", lambda v: v / 86_400),
        ("pr", "kg m**-2 s**-1", lambda v: v / 86_400),
        ("pr", "mm d-1", lambda v: v),
        ("pr", "mm/hr", lambda v: v / 24),
        ("pr", "m s-1", lambda v: v / 86_400_000),
    ],
)
def test_units_become_celsius_and_millimetres_per_month(
    cells: pa.Table, tmp_path: Path, name: str, units: str, change: Callable[[Any], Any]
) -> None:
    """Kelvin, Fahrenheit, fluxes and rates of any spelling give the same columns."""
    data = _dataset()
    data[name] = change(data[name]).assign_attrs({**data[name].attrs, "units": units})
    assert _check(cells, _save(data, tmp_path / "wx.nc")) == ""


@pytest.mark.parametrize(("units", "scale"), [("mm", 1.0), ("millimeter", 1.0), ("m", 1e-3), ("kg m-2", 1.0)])
def test_amounts_of_monthly_steps_are_of_the_month(cells: pa.Table, tmp_path: Path, units: str, scale: float) -> None:
    """mm, m and kg m-2 at monthly steps are the month's sum."""
    data = _dataset()
    sums = data["pr"] * xr.DataArray(DAYS * scale, dims="time")
    data["pr"] = sums.assign_attrs(units=units, standard_name="precipitation_amount")
    _check(cells, _save(data, tmp_path / "wx.nc"))


def test_a_monthly_mean_of_daily_sums_is_per_day(cells: pa.Table, tmp_path: Path) -> None:
    """ERA5's monthly means write `m` and mean m per day; GRIB_stepType tells, and a note says so."""
    data = _dataset()
    data["pr"] = (data["pr"] / 1000).assign_attrs(units="m", GRIB_stepType="avgad")
    assert "per day" in _check(cells, _save(data, tmp_path / "wx.nc"))


def test_daily_steps_are_averaged_and_summed_by_month(cells: pa.Table, tmp_path: Path) -> None:
    """Daily °C and mm give the same months; other years in the file do not matter."""
    data = _dataset(
        time=pd.date_range("2021-06-01", "2022-12-31"), lat=np.arange(46, 51, 1.0), lon=np.arange(7, 15, 1.0)
    )
    data["t2m"] = data["t2m"].where(data["time"].dt.year == 2022, 99.0).assign_attrs(data["t2m"].attrs)
    data["pr"] = data["pr"].assign_attrs(units="mm")
    assert _check(cells, _save(data, tmp_path / "wx.nc")) == ""


@pytest.mark.parametrize("lon", [np.arange(0, 360, 2.5), np.arange(-180, 180, 2.5), np.arange(1.25, 360, 2.5)])
def test_global_grids_wrap_in_longitude(tmp_path: Path, lon: NDArray[Any]) -> None:
    """0-360 and ±180 grids serve cells at Greenwich and at the antimeridian without a gap."""
    cells = owned_cells(["30UXC", "31UCT", "01KAB", "60KYF"], EARTH, chip_size=256).table
    data = _dataset(lat=np.arange(88.75, -90, -2.5), lon=lon)
    y = xr.broadcast(data["lat"], data["t2m"])[0]
    data["t2m"] = (30 - 0.5 * y).transpose(*data["t2m"].dims).assign_attrs(data["t2m"].attrs)
    data["pr"] = abs(data["pr"]).assign_attrs(data["pr"].attrs)
    found = weather_monthly(cells, _save(data, tmp_path / "wx.nc"), years=Y2022)
    warm = np.asarray(found.table["wx_t07"])
    np.testing.assert_allclose(warm, 30 - 0.5 * np.asarray(cells["lat"]), atol=2e-3)


@pytest.mark.parametrize("kind", ["attribute", "numbers", "no coordinate", "year 1"])
def test_climatologies_are_recognised(cells: pa.Table, tmp_path: Path, kind: str) -> None:
    """Twelve steps of no year: by CF's attribute, months 1-12, a bare dimension, or dates in year 1."""
    data = _dataset()
    if kind == "attribute":
        hours = (np.arange(12) * 730.0) - 15_769_752.0
        data = data.assign_coords(time=("time", hours, {"units": "hours since 1800-01-01", "climatology": "bounds"}))
    elif kind == "year 1":
        data = data.assign_coords(time=("time", np.arange(12) * 30.4 - 657_073, {"units": "days since 1800-01-01"}))
    elif kind == "numbers":
        data = data.rename(time="month").assign_coords(month=np.arange(1, 13))
    else:
        data = data.drop_vars("time")
    assert "climatology" in _check(cells, _save(data, tmp_path / "wx.nc"))


def test_two_files_on_two_grids_are_one_source(cells: pa.Table, tmp_path: Path) -> None:
    """Temperature and precipitation may lie in two files, on grids half a cell apart, latitudes either way."""
    warm = _save(_dataset()[["t2m"]], tmp_path / "t.nc")
    wet = _dataset(lat=np.arange(60.25, 39, -0.5), lon=np.arange(0.25, 20, 0.5))[["pr"]]
    assert _check(cells, f"{warm},{_save(wet, tmp_path / 'p.nc')}") == ""


def test_packed_values_and_fills_are_unpacked(cells: pa.Table, tmp_path: Path) -> None:
    """scale_factor, add_offset and _FillValue are honoured; a filled hole of one point is bridged."""
    data = _dataset()
    data["t2m"][:, 16, 20] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 10.0, "_FillValue": np.int16(-32768)}
    path = tmp_path / "wx.nc"
    data.to_netcdf(path, engine="h5netcdf", encoding={"t2m": packing})
    _check(cells, str(path), atol=0.6)


def test_daily_extremes_stand_in_for_the_mean(cells: pa.Table, tmp_path: Path) -> None:
    """Files with tmax and tmin only give their mean, and say so."""
    data = _dataset()
    for name, shift in (("tmax", 5.0), ("tmin", -5.0)):
        data[name] = (data["t2m"] + shift).assign_attrs(data["t2m"].attrs)
    assert "mean of daily extremes" in _check(cells, _save(data.drop_vars("t2m"), tmp_path / "wx.nc"))


def test_coasts_take_the_nearest_valid_value_and_the_open_sea_none(cells: pa.Table, tmp_path: Path) -> None:
    """Within two grid steps of land a value is taken; farther out it is unknown."""
    data = _dataset()
    land = data["lon"] <= 9.6
    data = data.assign({name: data[name].where(land).assign_attrs(data[name].attrs) for name in ("t2m", "pr")})
    found = weather_monthly(cells, _save(data, tmp_path / "wx.nc"), years=Y2022)
    lon, warm = np.asarray(cells["lon"]), np.asarray(found.table["wx_t01"])
    assert np.isfinite(warm[lon < 10.2]).all()
    assert np.isnan(warm[lon > 11.0]).all()
    assert "cells have no weather" in found.note


def test_years_the_file_lacks_are_noted(cells: pa.Table, tmp_path: Path) -> None:
    """The file's own years stand in, and the note says which."""
    data = _dataset(time=pd.date_range("2015-01-01", periods=24, freq="MS"))
    assert "averages of 2015-2016 stand in" in _check(cells, _save(data, tmp_path / "wx.nc"))


def test_a_month_that_rests_on_few_days_is_noted(cells: pa.Table, tmp_path: Path) -> None:
    """Daily data that break off are used, with a note."""
    data = _dataset(time=pd.date_range("2022-01-01", "2022-12-05"))
    data["pr"] = data["pr"].assign_attrs(units="mm")
    assert "month 12 rests on 5 of 31 days" in _check(cells, _save(data, tmp_path / "wx.nc"))


def _no_rain(data: xr.Dataset) -> xr.Dataset:
    return data.drop_vars("pr")


def _half_a_year(data: xr.Dataset) -> xr.Dataset:
    return data.isel(time=slice(0, 6))


def _odd_unit(data: xr.Dataset) -> xr.Dataset:
    return data.assign(t2m=data["t2m"].assign_attrs(units="furlongs"))


def _two_levels(data: xr.Dataset) -> xr.Dataset:
    return xr.concat([data, data], "level")


def _elsewhere(data: xr.Dataset) -> xr.Dataset:
    return data.assign_coords(lon=data["lon"] + 60)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_no_rain, "no precipitation"),
        (_half_a_year, "no values for months 7, 8, 9, 10, 11, 12"),
        (_odd_unit, "'furlongs'"),
        (_two_levels, "level"),
        (_elsewhere, "covers none of the region's cells"),
    ],
)
def test_what_cannot_be_used_is_refused(
    cells: pa.Table, tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], part: str
) -> None:
    """The message names the option, the file, what is wrong and a remedy."""
    source = _save(change(_dataset()), tmp_path / "wx.nc")
    with pytest.raises(InputError, match="--weather") as caught:
        weather_monthly(cells, source, years=Y2022)
    assert part in str(caught.value)
    assert source in str(caught.value)


def test_what_is_no_grid_is_named(cells: pa.Table, tmp_path: Path) -> None:
    """A missing file, a web page and a damaged NetCDF are told apart."""
    with pytest.raises(InputError, match="does not exist"):
        weather_monthly(cells, str(tmp_path / "no.nc"), years=Y2022)
    (tmp_path / "page.nc").write_text("<html>login</html>")
    with pytest.raises(InputError, match="no NetCDF"):
        weather_monthly(cells, str(tmp_path / "page.nc"), years=Y2022)
    whole = Path(_save(_dataset(), tmp_path / "wx.nc")).read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ArchiveError, match="cannot be read"):
        weather_monthly(cells, str(tmp_path / "cut.nc"), years=Y2022)


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_files_behind_addresses_are_read(cells: pa.Table, tmp_path: Path, suffix: str) -> None:
    """NetCDF by range requests and Zarr by keys from a web server."""
    path = tmp_path / f"wx.{suffix}"
    if suffix == "zarr":
        _dataset().to_zarr(path, consolidated=True, zarr_format=2)
    else:
        _save(_dataset(), path)
    with serving(folder_app(tmp_path)) as server:
        assert _check(cells, f"{server.url}/{path.name}") == ""


def test_the_real_climatologies_give_known_weather(shared_data: Path) -> None:
    """NCEP temperature and CMAP precipitation (NetCDF 4 and 3, year 1, half a cell apart) fit known places."""
    folder = shared_data / "weather"
    cells = owned_cells(["10TET", "19LBJ", "37MBV", "12SVC"], EARTH, chip_size=256).table
    source = f"{folder / 'air.mon.ltm.nc'},{folder / 'precip.mon.ltm.nc'}"
    found = weather_monthly(cells, source, years=Y2022)
    assert "climatology" in found.note
    means = found.table.to_pandas().groupby("tile").mean(numeric_only=True)
    assert means.loc["10TET", "wx_t07"] > means.loc["10TET", "wx_t01"] + 8  # Washington: warm summers,
    assert means.loc["10TET", "wx_p12"] > 4 * means.loc["10TET", "wx_p07"]  # wet winters
    assert 20 < means.loc["19LBJ", "wx_t01"] < 30  # western Amazon: always warm and wet
    assert means.loc["19LBJ", [f"wx_p{m:02d}" for m in range(1, 13)]].sum() > 1200
    assert means.loc["12SVC", [f"wx_p{m:02d}" for m in range(1, 13)]].sum() < 450  # Arizona
    assert found.table.to_pandas().notna().all().all()


def test_real_daily_files_of_one_month_are_refused(shared_data: Path) -> None:
    """Two days of January cannot say what a year is like."""
    folder = shared_data / "weather"
    cells = owned_cells(["12SVC"], EARTH, chip_size=256).table
    source = f"{folder / 'tavg-202201-grd-scaled.nc'},{folder / 'prcp-202201-grd-scaled.nc'}"
    with pytest.raises(InputError, match="no values for months 2, 3"):
        weather_monthly(cells, source, years=Y2022)
