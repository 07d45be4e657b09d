"""Which variable of a weather file is temperature or precipitation, and in which unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from geofm_pipeline.covariates.gridded import axis_name, is_remote
from geofm_pipeline.covariates.weather_steps import OPTION, USUAL, Habits, Steps, attributes, usable_steps
from geofm_pipeline.errors import InputError

_STANDARD = {
    "temperature": ("air_temperature", "surface_air_temperature", "surface_temperature"),
    "precipitation": (
        "precipitation_amount",
        "precipitation_flux",
        "lwe_precipitation_rate",
        "lwe_thickness_of_precipitation_amount",
        "rainfall_amount",
        "rainfall_flux",
    ),
}
_USUAL = {
    "temperature": ("t2m", "tas", "tavg", "tmean", "tmp", "temp", "temperature", "air", "air_temperature", "2t", "t"),
    "precipitation": ("tp", "pr", "prcp", "precip", "precipitation", "ppt", "rain", "rainfall", "pre", "p"),
}
_HIGHEST = ("tmax", "tmx", "tasmax", "mx2t")
_LOWEST = ("tmin", "tmn", "tasmin", "mn2t")

_TEMPERATURE = {  # unit → (factor, offset) to °C
    "k": (1.0, -273.15),
    "kelvin": (1.0, -273.15),
    **dict.fromkeys(("c", "degc", "celsius", "degreecelsius", "degreescelsius", "degreec", "degreesc"), (1.0, 0.0)),
    **dict.fromkeys(("f", "degf", "fahrenheit", "degreefahrenheit", "degreesfahrenheit"), (5.0 / 9.0, -160.0 / 9.0)),
}
_PRECIPITATION = {  # unit → (factor to mm, per what)
    **dict.fromkeys(("mm/day", "kgm-2/day"), (1.0, "day")),
    **dict.fromkeys(("mm/month", "kgm-2/month"), (1.0, "month")),
    **dict.fromkeys(("mm/s", "kgm-2/s"), (86_400.0, "day")),
    **dict.fromkeys(("mm/hour", "kgm-2/hour"), (24.0, "day")),
    "m/s": (86_400_000.0, "day"),
    "m/day": (1000.0, "day"),
    "cm/day": (10.0, "day"),
    "inch/day": (25.4, "day"),
    "inch/month": (25.4, "month"),
    "cm/month": (10.0, "month"),
    **dict.fromkeys(("mm", "kgm-2"), (1.0, "step")),
    "m": (1000.0, "step"),
    "cm": (10.0, "step"),
    "inch": (25.4, "step"),
}
_WORDS = {
    "millimeters": "mm", "millimeter": "mm", "millimetres": "mm", "millimetre": "mm", "meters": "m", "metres": "m",
    "inches": "inch", "in": "inch", "days": "day", "d": "day", "hr": "hour", "h": "hour", "hours": "hour",
    "mon": "month", "months": "month", "sec": "s", "seconds": "s", "second": "s",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable with what turns its stored values into °C, or into mm of a month."""

    data: xr.DataArray
    """Undecoded, dimensions of size one removed: time, latitude and longitude in any order."""
    others: tuple[xr.DataArray, ...]
    """More variables to average with it (tmin beside tmax)."""
    steps: Steps
    factor: float
    offset: float
    per: str
    """`level` (temperature), `day` (a rate in mm/day) or `month` (an amount)."""
    lat: str
    lon: str
    assumed: str
    """What had to be assumed, '' if nothing."""
    source: str = ""
    """As it was asked for, for messages."""
    habits: Habits = USUAL


def source_files(source: str) -> list[str]:
    """The one or two files of a source; a comma inside a URL belongs to it unless both sides are URLs."""
    parts = [part.strip() for part in source.split(",") if part.strip()]
    return [source] if is_remote(source) and not all(is_remote(part) for part in parts) else parts


def temperature_variable(datasets: Sequence[xr.Dataset], source: str, habits: Habits = USUAL) -> Variable:
    """The air temperature of the files, or the mean of its daily extremes; raises InputError when there is none."""
    found, pair = _find("temperature", datasets, habits.variables.get("t")), None
    if found is None:
        high, low = _named(datasets, _HIGHEST), _named(datasets, _LOWEST)
        found, pair = (high, low) if high is not None and low is not None else (None, None)
    if found is None:
        raise _missing("temperature", datasets, source, "K or °C")
    unit = _plain(found)
    if unit not in _TEMPERATURE:
        raise _bad_unit(found, source, "K, °C or °F")
    factor, offset = _TEMPERATURE[unit]
    assumed = "temperature is the mean of daily extremes" if pair is not None else ""
    others, found_as = () if pair is None else (pair,), _Found(datasets, "t", source, habits)
    return _variable(found, others, factor, offset, "level", found_as, assumed)


def precipitation_variable(datasets: Sequence[xr.Dataset], source: str, habits: Habits = USUAL) -> Variable:
    """The precipitation of the files; raises InputError when there is none."""
    found = _find("precipitation", datasets, habits.variables.get("p"))
    if found is None:
        raise _missing("precipitation", datasets, source, "mm, mm/day, m or kg m-2 s-1")
    unit = _plain(found)
    if unit not in _PRECIPITATION:
        raise _bad_unit(found, source, "mm, mm/month, mm/day, m or kg m-2 s-1")
    factor, per = _PRECIPITATION[unit]
    variable = _variable(found, (), factor, 0.0, per, _Found(datasets, "p", source, habits), "")
    return variable if per != "step" else _per_step(variable)


@dataclass(frozen=True)
class _Found:
    """Where a variable was found."""

    datasets: Sequence[xr.Dataset]
    letter: str
    source: str
    habits: Habits


def _per_step(variable: Variable) -> Variable:
    """An amount per time step becomes an amount per month, or a rate per day."""
    factor, per, assumed = variable.factor, "month", ""
    if str(variable.data.attrs.get("GRIB_stepType", "")).startswith("avg") and variable.steps.monthly:
        per, assumed = "day", "precipitation of a monthly mean of daily sums (GRIB_stepType avg) is per day"
    elif not variable.steps.monthly:
        factor, per = factor / variable.steps.days, "day"
    return replace(variable, factor=factor, per=per, assumed=assumed)


def _variable(
    data: xr.DataArray,
    others: tuple[xr.DataArray, ...],
    factor: float,
    offset: float,
    per: str,
    where: _Found,
    assumed: str,
) -> Variable:
    source = where.source
    data = data.squeeze(drop=True) if 1 in data.shape else data
    lat, lon = axis_name(data, "lat"), axis_name(data, "lon")
    if lat is None or lon is None:
        raise InputError(
            f"{OPTION} {source}: variable {data.name} has no one-dimensional latitude and longitude; regrid the file "
            f"to a latitude-longitude grid"
        )
    _check_axes(data, lat, lon, source)
    rest = [str(dim) for dim in data.dims if dim not in (lat, lon)]
    if len(rest) != 1:
        raise InputError(
            f"{OPTION} {source}: variable {data.name} has dimensions {', '.join(map(str, data.dims))}: it must have "
            f"time, latitude and longitude; choose one level or member and write it to a file of its own"
        )
    others = tuple(other.squeeze(drop=True) if 1 in other.shape else other for other in others)
    valid = attributes(where.datasets)
    steps = usable_steps(data, rest[0], source, letter=where.letter, habits=where.habits, valid=valid)
    return Variable(
        data=data, others=others, steps=steps, factor=factor, offset=offset, per=per, lat=lat, lon=lon,
        assumed=assumed, source=source, habits=where.habits,
    )  # fmt: skip


def _check_axes(data: xr.DataArray, lat: str, lon: str, source: str) -> None:
    """Raise InputError unless the axes are degrees of latitude and longitude, each in one direction."""
    for name, most, turn in ((lat, 90.0, None), (lon, 540.0, 360.0)):
        values, units = np.asarray(data[name].values, dtype=np.float64), str(data[name].attrs.get("units", "degree"))
        if not units.lower().startswith("deg") or not (np.abs(values) <= most + 1e-6).all():
            raise InputError(
                f"{OPTION} {source}: {name} of {data.name} ({units}, {values.min():g} to {values.max():g}) is no "
                f"{'latitude' if turn is None else 'longitude'} in degrees: regrid the file from its projection to a "
                "latitude-longitude grid (e.g. gdalwarp -t_srs EPSG:4326)"
            )
        steps = np.diff(values if turn is None else np.unwrap(values, period=turn))
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InputError(
                f"{OPTION} {source}: {name} of {data.name} neither ascends nor descends throughout: sort the file by it"
            )


def _find(kind: str, datasets: Sequence[xr.Dataset], name: str | None) -> xr.DataArray | None:
    if name is not None:
        return _named(datasets, (name,))
    spatial = [
        variable
        for dataset in datasets
        for variable in dataset.data_vars.values()
        if variable.ndim >= 2 and axis_name(variable, "lat") and axis_name(variable, "lon")
    ]
    by_name = [v for name in _USUAL[kind] for v in spatial if str(v.name).lower() == name]
    by_standard = [v for v in spatial if v.attrs.get("standard_name") in _STANDARD[kind]]
    extremes = {*_HIGHEST, *_LOWEST}
    by_standard = [v for v in by_standard if str(v.name).lower() not in extremes]
    for candidates in ([v for v in by_name if v.attrs.get("standard_name") in _STANDARD[kind]], by_standard, by_name):
        if candidates:
            return candidates[0]
    return None


def _named(datasets: Sequence[xr.Dataset], names: Sequence[str]) -> xr.DataArray | None:
    return next((v for d in datasets for v in d.data_vars.values() if str(v.name).lower() in names), None)


def _plain(variable: xr.DataArray) -> str:
    """Units without spelling: `kg m-2 s-1`, `kg/m2/s` → `kgm-2/s`, `degrees_C` → `degreesc`."""
    text = str(variable.attrs.get("units", "")).strip().lower().replace("**", "").replace("^", "").replace("°", "deg")
    if re.match(r"(deg|k$|kelvin|c$|celsius|f$|fahren)", text):
        return re.sub(r"[^a-z]", "", text)
    text = re.sub(r"\bof water( equivalent)?|\bwater\b|\bper\b", lambda m: "/" if m[0] == "per" else "", text)
    text = re.sub(r"([a-z]+)\s*-1\b", r"/\1", text).replace("/m2", "m-2")
    return "".join(_WORDS.get(str(word), str(word)) for word in re.findall(r"/|[a-z]+(?:-?\d+)?", text))


def _missing(kind: str, datasets: Sequence[xr.Dataset], source: str, units: str) -> InputError:
    names = ", ".join(sorted({str(name) for dataset in datasets for name in dataset.data_vars})) or "nothing"
    return InputError(
        f"{OPTION} {source} has no {kind}: its variables are {names}, and none has the standard name "
        f"{' or '.join(_STANDARD[kind][:2])} or a usual name such as {', '.join(_USUAL[kind][:4])} ({units}); give "
        f"two files as temperature.nc,precipitation.nc if they are apart"
    )


def _bad_unit(data: xr.DataArray, source: str, units: str) -> InputError:
    unit = data.attrs.get("units")
    return InputError(f"{OPTION} {source}: {data.name} has units {unit!r}; write {units} into the file")
