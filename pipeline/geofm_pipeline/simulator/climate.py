"""Weather of the invented world: monthly temperature and precipitation, and what they do to snow and plants.

Climate depends on latitude and height, weather on year and month; both are piecewise constant over *belts* of 256
lattice rows (7.7 km), so tables per belt and height serve every pixel. Degree-day snow and growing degree days follow
the usual textbook forms, with plausible rounded coefficients of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.simulator.noise import Field, as_field
from geofm_pipeline.simulator.orbits import row_latitude
from geofm_sampling.hashing import hashed_uniform

BELT = 256
"""Lattice rows that share one climate."""
LAPSE = 0.0062
"""Cooling with height, K per metre."""
HEAT_STEP = 0.25
"""Step of the height axis of climate tables in kelvin of cooling, 40 m."""
HEAT_LEVELS = 128
_DAYS = 366
_DAY_OF_MONTH = 30.44
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, kw_only=True)
class Seasons:
    """State of the land on every day of one year in one belt, arrays [366 days, 128 heights] float32."""

    temperature: Field
    """°C."""
    snow: Field
    """Share of the ground under snow where nothing shelters it."""
    warmth: Field
    """Growing degree days above 5 °C since midwinter, K·d."""
    chill: Field
    """Chilling degree days below 13 °C since late summer, K·d."""
    moisture: Field
    """Filling of the soil's water store, 0-1."""
    shift: Field
    """Days by which crops are ahead of the reference climate."""


def monthly_temperature(seed: int, lat: NDArray[np.float64], year: int, month: int) -> NDArray[np.float64]:
    """Mean sea-level temperature of a month (1-12) in °C at latitudes in degrees."""
    mean = 28.0 - 0.0068 * lat**2
    swing = np.where(lat >= 0, 0.25, 0.16) * lat
    season = np.cos(2 * np.pi * (month - 0.5 - 6.6) / 12.0)
    return np.asarray(mean + swing * season + 1.5 * _anomaly(seed, "temperature", year, month))


def monthly_precipitation(seed: int, lat: NDArray[np.float64], year: int, month: int) -> NDArray[np.float64]:
    """Precipitation of a month (1-12) in mm on flat land at latitudes in degrees."""
    away = np.abs(lat)
    yearly = 60.0 + 130.0 * np.exp(-((away / 12.0) ** 2)) + 45.0 * np.exp(-(((away - 48.0) / 14.0) ** 2))
    yearly = yearly - 45.0 * np.exp(-(((away - 27.0) / 9.0) ** 2))
    summer = np.cos(2 * np.pi * (month - 7.0) / 12.0) * np.sign(lat)
    swing = np.where(away < 22, 0.7, np.where(away < 42, -0.45, -0.1))
    anomaly = 0.45 * _anomaly(seed, "precipitation", year, month)
    return np.asarray(yearly * (1 + swing * summer) * np.exp(anomaly))


def wetness_of_relief(mountains: NDArray[np.float64] | Field) -> NDArray[np.float64]:
    """Factor by which mountains (0-1) raise precipitation."""
    return 1.0 + 0.6 * np.asarray(mountains, dtype=np.float64)


def heat_index(elevation: Field) -> NDArray[np.uint8]:
    """Height as an index of the climate tables, shape kept."""
    cooling = elevation * np.float32(LAPSE / HEAT_STEP)
    return np.asarray(np.clip(cooling, 0, HEAT_LEVELS - 1), dtype=np.uint8)


def belt_latitude(belt: int) -> float:
    """Latitude in degrees of the middle of a belt."""
    return float(row_latitude(np.array([belt * BELT + BELT // 2]))[0])


def july_temperature(belt: int) -> float:
    """Long-term mean of the warmest month at sea level, °C."""
    lat = belt_latitude(belt)
    return 28.0 - 0.0068 * lat**2 + (0.25 if lat >= 0 else 0.16) * abs(lat)


def day_index(day: int) -> tuple[int, int]:
    """(year, day of the year from 0) of days since 1970-01-01."""
    when = date.fromordinal(day + _EPOCH)
    return when.year, when.timetuple().tm_yday - 1


@lru_cache(maxsize=256)
def seasons(seed: int, belt: int, year: int) -> Seasons:
    """The year's states, after a spin-up that begins with the year before; about 15 ms."""
    lat = belt_latitude(belt)
    air = np.concatenate([_daily(seed, lat, y) for y in (year - 1, year)])  # (732, 2)
    cooling = np.arange(HEAT_LEVELS, dtype=np.float32) * np.float32(HEAT_STEP)
    temperature = (air[:, :1] - cooling).astype(np.float32)
    rain = (air[:, 1:] * wetness_of_relief(np.clip(cooling / 12, 0, 1))).astype(np.float32)
    warmth, chill = _degree_days(temperature, lat)
    this = slice(_DAYS, 2 * _DAYS)
    spring = temperature[_DAYS + 75 : _DAYS + 150].mean(axis=0) if lat >= 0 else temperature[-120:-60].mean(axis=0)
    shift = np.broadcast_to(np.clip(3.5 * (spring - 14.5), -45, 45), (_DAYS, HEAT_LEVELS))
    return Seasons(
        temperature=temperature[this],
        snow=_snow(temperature, rain)[this],
        warmth=warmth[this],
        chill=chill[this],
        moisture=_moisture(temperature, rain)[this],
        shift=shift.astype(np.float32),
    )


def _daily(seed: int, lat: float, year: int) -> NDArray[np.float64]:
    """Sea-level temperature (°C) and precipitation (mm/d) of 366 days, between the months' middles: (366, 2)."""
    where = np.array([lat])
    middles, values = [], []
    for index in range(-1, 13):
        y, month = year + index // 12, index % 12 + 1
        middles.append((index + 0.5) * _DAY_OF_MONTH)
        rain = monthly_precipitation(seed, where, y, month)[0] / _DAY_OF_MONTH
        values.append((monthly_temperature(seed, where, y, month)[0], rain))
    days = np.arange(_DAYS) + 0.5
    return np.stack([np.interp(days, middles, column) for column in np.array(values).T], axis=1)


def _degree_days(temperature: Field, lat: float) -> tuple[Field, Field]:
    """Growing degree days since midwinter and chilling degree days since late summer, [2 × 366, heights].

    Towards the equator, where there is no winter, plants neither wait for warmth nor lose their leaves to chill.
    """
    midwinter, late_summer = (0, 225) if lat >= 0 else (181, 45)
    winter = min(abs(lat) / 22.0, 1.0)
    warmth = _accumulate(np.maximum(temperature - 5, 0), midwinter)
    chill = _accumulate(np.maximum(13 - temperature, 0), late_summer)
    autumn = (np.arange(len(temperature)) - late_summer) % _DAYS < (midwinter - late_summer) % _DAYS
    return as_field(warmth + 600 * (1 - winter)), as_field(chill * winter * autumn[:, None])


def _accumulate(daily: Field, start: int) -> Field:
    """Running sum that begins anew on day `start` of every year."""
    total = np.cumsum(daily, axis=0)
    out = total.copy()
    for first in (start, start + _DAYS):
        out[first:] = total[first:] - (total[first - 1] if first else 0)
    return out.astype(np.float32)


def _snow(temperature: Field, rain: Field) -> Field:
    """Snow cover from a degree-day store of snow water: 4.5 mm/K/d of melt, half covered at 30 mm."""
    store = np.zeros(HEAT_LEVELS, dtype=np.float32)
    cover = np.empty_like(temperature)
    for day in range(len(temperature)):
        frozen = np.clip((2 - temperature[day]) / 3, 0, 1)
        store = store + rain[day] * frozen - np.minimum(store, 4.5 * np.maximum(temperature[day] + 0.5, 0))
        cover[day] = store / (store + 30)
    return cover


def _moisture(temperature: Field, rain: Field) -> Field:
    """A bucket of 120 mm filled by rain and emptied in proportion to warmth and to what is left."""
    store = np.full(HEAT_LEVELS, 80, dtype=np.float32)
    filling = np.empty_like(temperature)
    for day in range(len(temperature)):
        loss = 0.19 * np.maximum(temperature[day], 0) * store / 120
        store = np.clip(store + rain[day] - loss, 0, 120)
        filling[day] = store / 120
    return filling


def _anomaly(seed: int, what: str, year: int, month: int) -> float:
    """A standard normal number per month (sum of four uniform ones)."""
    ids = np.arange(4, dtype=np.uint64) + np.uint64((year * 12 + month) * 4)
    return float((hashed_uniform(seed, f"anomaly/{what}", ids).sum() - 2.0) * 3**0.5)
