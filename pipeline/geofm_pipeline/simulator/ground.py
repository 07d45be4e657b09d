"""The ground: what covers each pixel, before any season or sky.

Classes follow height, slope, warmth, moisture and people: permanent snow above rock above alpine meadows above
conifers above mixed forest; in the lowlands fields with their parcels, woodlots, towns, river banks and wetlands.
The arrays are compact (12 bytes per pixel) because a whole tile keeps them through all its dates.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.simulator.climate import BELT, HEAT_STEP, heat_index, july_temperature
from geofm_pipeline.simulator.farms import Parcels, built_up, parcels
from geofm_pipeline.simulator.noise import Field, Window, as_field, fractal, smooth, white
from geofm_pipeline.simulator.relief import Relief, relief

TREE, SHRUB, GRASS, CROP, BUILT, BARE, SNOW, WATER, WETLAND = 10, 20, 30, 40, 50, 60, 70, 80, 90
"""Class values of ESA WorldCover."""
CLASSES = {
    TREE: "Tree cover",
    SHRUB: "Shrubland",
    GRASS: "Grassland",
    CROP: "Cropland",
    BUILT: "Built-up",
    BARE: "Bare / sparse vegetation",
    SNOW: "Snow and ice",
    WATER: "Permanent water bodies",
    WETLAND: "Herbaceous wetland",
}
CURVES = (
    "water",
    "conifer",
    "deciduous",
    "shrub",
    "pasture",
    "alpine",
    "rock",
    "ice",
    "town",
    "works",
    "wetland",
    "gravel",
    "crop",
)
"""What a pixel looks like through the year; `crop` depends on the parcel and the year."""
CURVE = {name: number for number, name in enumerate(CURVES)}
_FINE = 100.0  # slopes and texture are kept in hundredths


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The ground of a window, arrays [H, W]."""

    cover: NDArray[np.uint8]
    """WorldCover class."""
    curve: NDArray[np.uint8]
    """Index into CURVES."""
    parcel: NDArray[np.uint16]
    heat: NDArray[np.uint8]
    """Height as an index of climate tables."""
    east: NDArray[np.int8]
    """Rise towards the east, hundredths, clipped to ±1.27."""
    north: NDArray[np.int8]
    texture: NDArray[np.int8]
    """Natural variation of brightness, standard deviation 32."""
    water: NDArray[np.uint8]
    """Share of the pixel under water, 255 = all."""
    road: NDArray[np.uint8]
    """Share of the pixel under roads and edges of parcels, 255 = all."""
    shelter: NDArray[np.uint8]
    """Snow cover (of 255) below which this pixel is free of snow."""

    def part(self, rows: slice, cols: slice = slice(None)) -> Ground:
        """The same ground over some rows and columns, without copying."""
        return Ground(**{item.name: getattr(self, item.name)[rows, cols] for item in fields(self)})


def ground(seed: int, window: Window) -> Ground:
    """The ground of a window, made belt by belt so that memory stays bounded."""
    parts = [_stripe(seed, stripe) for stripe in stripes(window)]
    return Ground(**{item.name: np.concatenate([getattr(p, item.name) for p in parts]) for item in fields(Ground)})


def cover(seed: int, window: Window) -> NDArray[np.uint8]:
    """Only the WorldCover classes of a window, [H, W]."""
    return np.concatenate([_stripe(seed, stripe).cover for stripe in stripes(window)])


def stripes(window: Window) -> list[Window]:
    """The window cut at the climate belts, from the north."""
    cuts = [window.row, *range((window.row // BELT + 1) * BELT, window.row + window.height, BELT)]
    ends = [*cuts[1:], window.row + window.height]
    return [
        Window(zone=window.zone, row=top, col=window.col, height=end - top, width=window.width)
        for top, end in zip(cuts, ends, strict=True)
    ]


def _stripe(seed: int, window: Window) -> Ground:
    land = relief(seed, window)
    fields_, (town, road) = parcels(seed, window), built_up(seed, window)
    slope = np.hypot(land.east, land.north)
    warmth = as_field(_july(window, land) + np.float32(0.9) * smooth(seed, "treeline", window, 16))
    forest = fractal(seed, "forest", window, coarsest=64, finest=2, roughness=0.62)
    curve = _wild(seed, window, land, slope, warmth, forest)
    lowland = (slope < 0.13) & (warmth > 14.5) & (forest < 1.25)
    _farm(curve, lowland, fields_, land, forest)
    _shores(seed, window, curve, land, slope)
    dense = (town > 0.35 + 0.5 * (1 - white(seed, "garden", window)) * (1 - town)) & (slope < 0.3) & (warmth > 12)
    curve[dense] = CURVE["town"]
    curve[dense & (fractal(seed, "works", window, coarsest=8, finest=4) > 1.25)] = CURVE["works"]
    curve[land.water > 0.5] = CURVE["water"]
    passable = (slope < 0.3) & (warmth > 12)
    edges = np.where(lowland, np.clip(0.6 - fields_.edge, 0, 0.35), 0)
    return Ground(
        cover=_COVER[curve],
        curve=curve,
        parcel=fields_.number,
        heat=heat_index(land.elevation),
        east=_hundredths(land.east),
        north=_hundredths(land.north),
        texture=_texture(seed, window, curve),
        water=(land.water * 255).astype(np.uint8),
        road=(np.maximum(road * passable, edges) * 255).astype(np.uint8),
        shelter=_shelter(seed, window, land),
    )


_COVER = np.array(
    [WATER, TREE, TREE, SHRUB, GRASS, GRASS, BARE, SNOW, BUILT, BUILT, WETLAND, BARE, CROP], dtype=np.uint8
)
"""WorldCover class of each curve."""


def _july(window: Window, land: Relief) -> Field:
    """Mean temperature of the warmest month at the pixel's height, °C."""
    sea_level = july_temperature(window.row // BELT)
    return as_field(sea_level - heat_index(land.elevation).astype(np.float32) * HEAT_STEP)


def _wild(seed: int, window: Window, land: Relief, slope: Field, warmth: Field, forest: Field) -> NDArray[np.uint8]:
    """Natural vegetation by warmth and slope."""
    mix = fractal(seed, "species", window, coarsest=32, finest=4)
    curve = np.where(mix * np.float32(2.2) > warmth - 16.5, CURVE["conifer"], CURVE["deciduous"]).astype(np.uint8)
    open_land = forest < -0.75 - 1.2 * (slope > 0.35)
    curve[open_land & (warmth > 14)] = CURVE["pasture"]
    curve[(open_land & (warmth <= 14)) | (warmth < 11.3)] = CURVE["alpine"]
    curve[(warmth > 10.2) & (warmth < 11.8) & (forest > 0.2)] = CURVE["shrub"]
    curve[(warmth < 8.4 + 1.2 * (forest < 0)) | ((slope > 0.95) & (forest < 0.6))] = CURVE["rock"]
    curve[(warmth + 1.3 * forest < 5.6) & (slope < 0.62)] = CURVE["ice"]
    return curve


def _farm(curve: NDArray[np.uint8], lowland: NDArray[np.bool_], fields_: Parcels, land: Relief, forest: Field) -> None:
    """Fields, pastures and hedges of the lowland, in place."""
    kind = (fields_.number & np.uint16(0xFF)).astype(np.float32) / np.float32(256)
    curve[lowland] = CURVE["crop"]
    curve[lowland & (kind < 0.14 + 0.5 * (land.mountains > 0.25))] = CURVE["pasture"]
    curve[lowland & (kind > 0.955)] = CURVE["deciduous"]
    hedge = (fields_.district_edge < 0.8) & (forest > -0.1)
    brook = (land.stream < 1.1) & (forest > -0.5)
    curve[lowland & (hedge | brook)] = CURVE["deciduous"]


def _shores(seed: int, window: Window, curve: NDArray[np.uint8], land: Relief, slope: Field) -> None:
    """Banks of rivers and lakes: riparian forest, gravel and wetlands, in place."""
    ragged = fractal(seed, "shore", window, coarsest=32, finest=2, roughness=0.65)
    flat = slope < 0.12
    curve[flat & (land.bank + 4 * ragged < 5)] = CURVE["deciduous"]
    wet = smooth(seed, "wet", window, 256) > 0.9
    curve[flat & wet & (land.bank + 9 * ragged < 12)] = CURVE["wetland"]
    curve[(land.bank < 1.6 + 0.8 * ragged) & (ragged > 0.5)] = CURVE["gravel"]


def _texture(seed: int, window: Window, curve: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Fractal variation, and in towns the roofs and gardens that differ from pixel to pixel."""
    value = fractal(seed, "texture", window, coarsest=64, finest=2, roughness=0.6)
    roofs = white(seed, "roofs", window) * np.float32(4) - np.float32(2)
    value += roofs * ((curve == CURVE["town"]) | (curve == CURVE["works"]))
    return np.asarray(np.clip(value * np.float32(32), -127, 127), dtype=np.int8)


def _shelter(seed: int, window: Window, land: Relief) -> NDArray[np.uint8]:
    """Patches that lose their snow early: sunny slopes and chance."""
    patch = np.float32(0.5) + np.float32(0.16) * fractal(seed, "snow", window, coarsest=32, finest=2, roughness=0.7)
    sign = np.float32(1 if window.row <= 0 else -1)
    return np.asarray(np.clip((patch - sign * np.float32(0.4) * land.north) * 255, 12, 245), dtype=np.uint8)


def _hundredths(slope: Field) -> NDArray[np.int8]:
    return np.asarray(np.clip(np.rint(slope * np.float32(_FINE)), -127, 127), dtype=np.int8)
