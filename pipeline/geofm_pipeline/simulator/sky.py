"""The sky: cloud fields with soft edges, their shadows, and aerosol, per overpass, on the lattice.

How cloudy a pass is follows the month's rain; the cloud field is fractal noise above a threshold, cumulus in the
warm season, sheets in the cold one. A shadow is the cloud seen along the sun's ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.simulator.climate import BELT, belt_latitude, day_index, monthly_precipitation
from geofm_pipeline.simulator.noise import Field, Window, fractal, smoothstep
from geofm_pipeline.simulator.orbits import Overpass, sun
from geofm_sampling.hashing import hashed_uniform

CLOUD_OPACITY = 0.3
"""Opacity above which Fmask calls a pixel cloud; thinner veils stay unflagged, as in life."""
SHADOW_OPACITY = 0.35
ADJACENT = 5
"""Pixels around cloud and shadow that are flagged as adjacent (150 m, HLS v2.0 user guide)."""
_LOWEST_SUN = np.radians(78.0)


@dataclass(frozen=True, kw_only=True)
class Sky:
    """What lies between sun, ground and sensor over a window, arrays [H, W]."""

    opacity: Field
    """Of the clouds, 0-1."""
    shade: Field
    """Opacity of the cloud between ground and sun, 0-1."""
    cloud: NDArray[np.bool_]
    shadow: NDArray[np.bool_]
    adjacent: NDArray[np.bool_]
    haze: Field
    """Aerosol beyond what atmospheric correction removes, about 0 ± 1."""


def coverage(seed: int, overpass: Overpass, belt: int) -> float:
    """Cloud fraction (0-1) that a pass aims at: the month's rain decides how often it is clear, broken or overcast."""
    year, index = day_index(overpass.day)
    month = min(index // 31 + 1, 12)
    rain = float(monthly_precipitation(seed, np.array([belt_latitude(belt)]), year, month)[0])
    mean = float(np.clip(0.22 + rain / 260.0, 0.15, 0.8))
    u = _uniform(seed, "coverage", overpass)
    # a U-shaped law with that mean: many clear and many overcast days, fewer in between
    return float(np.clip((u ** (1.0 / mean - 0.55)) * 1.04 - 0.02, 0.0, 0.995))


def sky(seed: int, overpass: Overpass, window: Window) -> Sky:
    """The sky over a window that lies within one climate belt."""
    belt, wide = window.row // BELT, window.grown(ADJACENT)
    opacity = _opacity(seed, overpass, wide, belt)
    down, right = shadow_shift(seed, overpass, belt)
    towards_sun = Window(
        zone=wide.zone, row=wide.row + down, col=wide.col + right, height=wide.height, width=wide.width
    )
    shade = _opacity(seed, overpass, towards_sun, belt)
    cloud = opacity > CLOUD_OPACITY
    shadow = (shade > SHADOW_OPACITY) & ~cloud
    inner = (slice(ADJACENT, -ADJACENT), slice(ADJACENT, -ADJACENT))
    near = _dilated(cloud | shadow)[inner]
    return Sky(
        opacity=opacity[inner],
        shade=shade[inner],
        cloud=cloud[inner],
        shadow=shadow[inner],
        adjacent=near & ~cloud[inner] & ~shadow[inner],
        haze=_haze(seed, overpass, window),
    )


def shadow_shift(seed: int, overpass: Overpass, belt: int) -> tuple[int, int]:
    """Rows down and columns right from a shadow to its cloud, for the pixels of a belt."""
    here = sun(overpass, np.array([belt * BELT + BELT // 2]))
    height = 1200.0 + 2600.0 * _uniform(seed, "cloud-base", overpass)
    pixels = height * np.tan(min(float(here.zenith[0]), _LOWEST_SUN)) / PIXEL_M
    azimuth = float(here.azimuth[0])
    return round(-pixels * np.cos(azimuth)), round(pixels * np.sin(azimuth))


def _opacity(seed: int, overpass: Overpass, window: Window, belt: int) -> Field:
    """Opacity of the clouds over a window, which may reach beyond the belt that sets their amount."""
    share = coverage(seed, overpass, belt)
    if share <= 0.0:
        return np.zeros(window.shape, dtype=np.float32)
    what = f"cloud/{overpass.word}"
    sheet = fractal(seed, what, window, coarsest=512, finest=4, roughness=0.62)
    if _cumulus(seed, overpass, belt):
        puffs = fractal(seed, f"{what}/puff", window, coarsest=64, finest=4, roughness=0.62)
        sheet = np.float32(0.45) * sheet + np.float32(0.89) * puffs
        soft = 0.5
    else:
        soft = 0.9
    threshold = NormalDist().inv_cdf(1.0 - share)
    return np.float32(0.985) * smoothstep(threshold - 0.35 * soft, threshold + soft, sheet)


def _cumulus(seed: int, overpass: Overpass, belt: int) -> bool:
    """Whether the pass has cumulus rather than sheets: by season only, so that no belt differs from its neighbour."""
    _, index = day_index(overpass.day)
    summer = np.cos(2 * np.pi * (index - 200) / 365.25) * (1 if belt <= 0 else -1)
    return _uniform(seed, "cumulus", overpass) < 0.5 + 0.4 * float(summer)


def _haze(seed: int, overpass: Overpass, window: Window) -> Field:
    level = 1.1 * (_uniform(seed, "haze", overpass) * 2.0 - 1.2)
    return np.float32(level) + np.float32(0.55) * fractal(
        seed, f"haze/{overpass.word}", window, coarsest=512, finest=32
    )


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask grown by ADJACENT pixels to an octagon, exact on any window."""
    values = mask.astype(np.uint8)
    square = ndimage.maximum_filter(values, size=2 * (ADJACENT - 2) + 1, mode="nearest")
    cross = ndimage.generate_binary_structure(2, 1)
    return np.asarray(ndimage.binary_dilation(square.astype(bool), structure=cross, iterations=2))


def _uniform(seed: int, what: str, overpass: Overpass) -> float:
    return float(hashed_uniform(seed, f"sky/{what}", np.array([overpass.word], dtype=np.uint64))[0])


def aerosol_level(haze: Field, cloud: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Aerosol level of Fmask's top bits, 1 low to 3 high, shape kept; cloud edges read as high."""
    level = 1 + (haze > 0.35).astype(np.uint8) + (haze > 1.05).astype(np.uint8)
    return np.where(cloud, np.uint8(3), level).astype(np.uint8)
