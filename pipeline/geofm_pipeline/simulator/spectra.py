"""Reflectance of the ground by day: six bands in the order of BANDS, as counts (reflectance × 10⁴).

Endmembers are rounded values of our own, of the size that spectral libraries and ordinary HLS pixels show; they are
not measurements. What mixes them are the climate tables: green by growing degree days, autumn by chill, drought by
soil water.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import BANDS
from geofm_pipeline.simulator.climate import HEAT_LEVELS, Seasons, day_index, seasons
from geofm_pipeline.simulator.ground import CURVE, CURVES
from geofm_pipeline.simulator.noise import Field, as_field, smoothstep
from geofm_sampling.hashing import hashed_uniform

ENDMEMBERS: dict[str, tuple[int, int, int, int, int, int]] = {
    "conifer": (170, 310, 230, 2000, 900, 400),
    "leaves": (220, 500, 280, 3700, 1750, 750),
    "twigs": (430, 600, 720, 1550, 1950, 1250),
    "autumn": (330, 680, 950, 2600, 2050, 1050),
    "shrub": (380, 640, 700, 2200, 2200, 1350),
    "sward": (310, 680, 400, 4000, 2100, 1000),
    "hay": (620, 960, 1250, 2500, 2900, 1950),
    "alpine": (420, 760, 640, 3000, 2300, 1250),
    "rock": (1050, 1250, 1450, 1900, 2300, 2050),
    "ice": (5900, 6100, 5800, 4600, 500, 300),
    "snow": (9100, 9200, 9000, 8200, 950, 650),
    "town": (900, 1060, 1200, 2050, 2050, 1700),
    "works": (1900, 2050, 2150, 2700, 2600, 2250),
    "asphalt": (850, 980, 1080, 1450, 1600, 1450),
    "wetland": (380, 620, 560, 2000, 1500, 800),
    "gravel": (1450, 1700, 1900, 2350, 2700, 2500),
    "crop": (270, 620, 310, 4600, 1900, 850),
    "ripe": (720, 1200, 1600, 3000, 3200, 2200),
    "soil": (760, 1020, 1330, 1950, 2800, 2400),
    "stubble": (800, 1150, 1500, 2350, 3200, 2600),
    "lake": (210, 190, 75, 14, -6, -9),
    "river": (520, 700, 520, 190, 28, 10),
    "cloud": (6100, 6150, 6200, 6400, 4500, 3500),
}
CROPS = ("winter cereal", "maize", "rice", "lucerne", "vineyard", "vegetables")
_CROP_SHARES = (0.30, 0.34, 0.06, 0.14, 0.06, 0.10)
_CROP_DAYS = 366
CROP_BASE = len(CURVES) * HEAT_LEVELS
"""First row of the crop part of a spectral table."""
_CANOPY = {"conifer": 0.12, "deciduous": 0.25, "shrub": 0.5, "town": 0.7, "works": 0.7, "water": 0.0, "gravel": 0.9}
CANOPY = np.array([_CANOPY.get(name, 1.0) for name in CURVES], dtype=np.float32)
"""Share of a full snow cover that shows from above, by curve; lakes do not freeze over."""
_ROUGHNESS = {"conifer": 0.14, "deciduous": 0.10, "town": 0.2, "works": 0.25, "rock": 0.14, "crop": 0.04, "water": 0.0}
ROUGHNESS = np.array([_ROUGHNESS.get(name, 0.08) for name in CURVES], dtype=np.float32)
"""Standard deviation of brightness within a class, by curve."""


def endmember(name: str) -> Field:
    """One endmember, shape (6,)."""
    return np.array(ENDMEMBERS[name], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class CropYear:
    """What grows in each of the 65,536 parcel numbers in one year."""

    row: NDArray[np.int32]
    """First row of the parcel's crop in a spectral table, its sowing date included."""
    tint: Field
    """Brightness of the parcel relative to others, mean 1."""


@lru_cache(maxsize=8)
def crop_year(seed: int, year: int) -> CropYear:
    """Crops of a year: each parcel draws its crop anew, as in a rotation."""
    numbers = np.arange(1 << 16, dtype=np.uint64)
    kind = np.searchsorted(np.cumsum(_CROP_SHARES)[:-1], hashed_uniform(seed, f"crop/{year}", numbers))
    sown = np.rint(30 * (hashed_uniform(seed, f"sown/{year}", numbers) - 0.5)).astype(np.int32)
    tint = 0.86 + 0.28 * hashed_uniform(seed, "tint", numbers)
    return CropYear(row=CROP_BASE + kind.astype(np.int32) * _CROP_DAYS + sown, tint=tint.astype(np.float32))


def table_rows(
    curve: NDArray[np.uint8], parcel: NDArray[np.uint16], heat: NDArray[np.uint8], rows: CropRows
) -> NDArray[np.int32]:
    """Row of the spectral table for every pixel, shape kept."""
    index = curve.astype(np.int32) * HEAT_LEVELS + heat
    crop = curve == CURVE["crop"]
    first = rows.crops.row[parcel[crop]]
    kind = (first - CROP_BASE + _CROP_DAYS // 2) // _CROP_DAYS  # sowing dates stay far from half a year
    start = CROP_BASE + kind * _CROP_DAYS
    index[crop] = start + np.clip(first - start + rows.day[heat[crop]], 0, _CROP_DAYS - 1)
    return index


@dataclass(frozen=True, kw_only=True)
class CropRows:
    """How far the crops are on a day."""

    crops: CropYear
    day: NDArray[np.int32]
    """Day of the year of the reference climate, by height."""


def crop_rows(seed: int, belt: int, day: int) -> CropRows:
    """Progress of the crops of a belt on a day."""
    year, index = day_index(day)
    ahead = seasons(seed, belt, year).shift[index]
    turned = (index + (0 if belt <= 0 else 183)) % _CROP_DAYS  # southern farms live half a year later
    return CropRows(crops=crop_year(seed, year), day=np.rint(turned + ahead).astype(np.int32))


@lru_cache(maxsize=256)
def spectral_table(seed: int, belt: int, day: int) -> Field:
    """Reflectance of every curve and height, then of every crop and day: [rows, 6] float32 counts."""
    year, index = day_index(day)
    state = seasons(seed, belt, year)
    curves = _curves(state, index)
    wild = np.stack([curves[name] for name in CURVES])  # [curve, height, band]
    crops = np.stack([_crop(name, float(state.moisture[index, 0])) for name in CROPS])
    return np.concatenate([wild.reshape(-1, len(BANDS)), crops.reshape(-1, len(BANDS))]).astype(np.float32)


def snow_cover(seed: int, belt: int, day: int) -> Field:
    """Share of open ground under snow by height, shape (128,)."""
    year, index = day_index(day)
    return as_field(seasons(seed, belt, year).snow[index])


def _curves(state: Seasons, day: int) -> dict[str, Field]:
    """Spectrum of every curve by height, [128, 6] each."""
    warmth, chill, moisture = state.warmth[day], state.chill[day], state.moisture[day]
    leaf = smoothstep(140, 420, warmth)
    fading, fallen = smoothstep(25, 110, chill), smoothstep(110, 260, chill)
    grass = smoothstep(40, 200, warmth) * (1 - 0.75 * smoothstep(120, 420, chill)) * (0.25 + 0.75 * moisture)
    alpine = smoothstep(30, 130, warmth) * (1 - smoothstep(60, 240, chill)) * (0.4 + 0.6 * moisture)
    crown = _mix(_mix(_steady("twigs"), _steady("leaves"), leaf), _steady("autumn"), fading * leaf)
    wet_soil = _mix(_steady("gravel"), _steady("gravel") * np.float32(0.8), moisture)
    return {
        "water": _steady("lake"),
        "conifer": as_field(_steady("conifer") * (1 + 0.12 * leaf[:, None])),
        "deciduous": _mix(crown, _steady("twigs"), fallen),
        "shrub": _mix(_steady("shrub"), _steady("leaves"), 0.35 * leaf * moisture),
        "pasture": _mix(_steady("hay"), _steady("sward"), 0.12 + 0.88 * grass),
        "alpine": _mix(_mix(_steady("rock"), _steady("hay"), 0.6 * np.ones_like(leaf)), _steady("alpine"), alpine),
        "rock": _steady("rock"),
        "ice": _steady("ice"),
        "town": _mix(_steady("town"), _steady("leaves"), 0.12 * leaf),
        "works": _steady("works"),
        "wetland": _mix(_steady("wetland"), _steady("sward"), 0.5 * grass),
        "gravel": wet_soil,
        "crop": _steady("soil"),
    }


def _crop(name: str, moisture: float) -> Field:
    """Spectrum of a crop on each day of the reference climate, [366, 6]."""
    day = np.arange(_CROP_DAYS, dtype=np.float32)
    soil = endmember("soil") * np.float32(1.12 - 0.34 * moisture)
    bare = np.broadcast_to(soil, (_CROP_DAYS, len(BANDS)))
    green, ripe, stubble = _growth(name, day)
    ground = _mix(bare, np.broadcast_to(endmember("stubble"), bare.shape), stubble)
    if name == "rice":
        flood = smoothstep(105, 118, day) * (1 - smoothstep(150, 175, day))
        ground = _mix(ground, np.broadcast_to(endmember("river"), bare.shape), 0.85 * flood)
    canopy = _mix(np.broadcast_to(endmember("crop"), bare.shape), np.broadcast_to(endmember("ripe"), bare.shape), ripe)
    return _mix(ground, canopy, green)


def _growth(name: str, day: Field) -> tuple[Field, Field, Field]:
    """(cover of the ground, ripeness of that cover, stubble on the rest) by day, each 0-1."""
    none = np.zeros_like(day)
    match name:
        case "winter cereal":
            spring = (0.25 + 0.7 * smoothstep(55, 105, day)) * (1 - smoothstep(183, 190, day))
            cover = spring + 0.28 * smoothstep(305, 350, day)
            return as_field(cover), _hump(day, 150, 176, 199, 200), _hump(day, 183, 190, 245, 275)
        case "maize":
            stubble = as_field(0.7 * smoothstep(258, 275, day))
            return as_field(0.95 * _hump(day, 135, 185, 258, 272)), smoothstep(235, 262, day), stubble
        case "rice":
            ripe, stubble = smoothstep(225, 258, day), smoothstep(262, 276, day)
            return as_field(0.93 * _hump(day, 148, 190, 262, 276)), ripe, stubble
        case "lucerne":
            mown = (0.5 + 0.5 * np.cos(2 * np.pi * (day - 128) / 38)) ** 6  # every 38 days
            return as_field(0.2 + 0.75 * _hump(day, 60, 100, 290, 340) * (1 - 0.75 * mown)), none, none
        case "vineyard":
            ripe = as_field(0.3 * smoothstep(255, 300, day))
            return as_field(0.15 + 0.4 * _hump(day, 110, 160, 280, 312)), ripe, none
        case _:
            spring, late = _hump(day, 85, 120, 165, 175), _hump(day, 195, 225, 285, 300)
            return as_field(0.75 * np.maximum(spring, late)), none, none


def _hump(day: Field, rise: float, full: float, end: float, gone: float) -> Field:
    """0 before `rise` and after `gone`, 1 between `full` and `end`."""
    return as_field(smoothstep(rise, full, day) * (1 - smoothstep(end, gone, day)))


def _steady(name: str) -> Field:
    return np.broadcast_to(endmember(name), (HEAT_LEVELS, len(BANDS)))


def _mix(first: Field, second: Field, share: Field) -> Field:
    """`first` where share is 0, `second` where it is 1; `share` lacks the band axis."""
    weight = np.asarray(share, dtype=np.float32)[:, None]
    return np.asarray(first * (1 - weight) + second * weight, dtype=np.float32)
