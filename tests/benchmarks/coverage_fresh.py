"""Populations that no design was chosen on: what coverage.py --population confirms on (docs/evidence/coverage.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from coverage_population import Array, Population, surfaces

from geofm_sampling.hilbert import hilbert_index

EDGE = 32
"""Pixels per patch edge."""
CLEAR = 0.8
"""Least clear share of a patch; the pixels that are not clear become fill, as in a real look."""
FILL = -9999


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image."""

    name: str
    pixels: Array
    """[6, H, W] int16, blue, green, red, near infrared and two short-wave bands, reflectance × 10⁴."""
    clear: Array
    """[H, W], True where a mask says neither cloud nor shadow."""
    spoilt: Array
    """[H, W], True where a band is fill or saturated; a patch with one such pixel is left out."""
    place: int
    """Number of the ground; equal for two dates of one place."""
    label: Array | None = None
    """[H, W] class of the ground, the stratum of a patch then being its dominant class; without, the scene is."""


def population(name: str, scenes: list[Scene]) -> Population:
    """The clear patches of some scenes."""
    pixels, stratum, ground, order = [], [], [], []
    for number, scene in enumerate(scenes):
        height, width = scene.clear.shape
        for row in range(0, height - EDGE + 1, EDGE):
            for col in range(0, width - EDGE + 1, EDGE):
                at = np.s_[row : row + EDGE, col : col + EDGE]
                if scene.spoilt[at].any() or scene.clear[at].mean() < CLEAR:
                    continue
                pixels.append(np.where(scene.clear[at], scene.pixels[:, *at], FILL).astype(np.int16))
                stratum.append(number if scene.label is None else np.bincount(scene.label[at].ravel()).argmax())
                ground.append((scene.place << 24) + (row << 12) + col)
                order.append((number << 40) + int(hilbert_index(col // EDGE, row // EDGE)))
    kept, group = np.unique(stratum, return_inverse=True)
    return Population(
        name=name,
        pixels=np.stack(pixels),
        stratum=group,
        names=tuple(scenes[k].name if scenes[0].label is None else f"class {k}" for k in kept),
        ground=np.array(ground),
        shares=surfaces(np.stack(pixels)),
        order=np.array(order),
    )


def _read(path: Path) -> Array:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def landsat(data: Path) -> Population:
    """New England: four Landsat scenes with cfmask (0 land, 1 water), of which one is all cloud and falls out."""
    scenes = []
    for number, folder in enumerate(sorted((data / "imagery/landsat").glob("L*/"))):
        pixels = np.concatenate([_read(next(folder.glob(f"*_sr_band{b}.tif"))) for b in (1, 2, 3, 4, 5, 7)])
        mask = _read(next(folder.glob("*_cfmask.tif")))[0]
        spoilt = ((pixels == FILL) | (pixels == 20_000)).any(axis=0) | (mask == 255)
        scenes.append(Scene(name=folder.name[:16], pixels=pixels, clear=mask <= 1, spoilt=spoilt, place=number))
    return population("New England", scenes)


def cloud(data: Path) -> Population:
    """Two Landsat images at the top of the atmosphere with cloud masks (1 water, 3 land)."""
    scenes = []
    for number, path in enumerate(sorted((data / "labelled/cloud").glob("*.npz"))):
        with np.load(path) as arrays:
            pixels = np.rint(np.moveaxis(arrays["img"], -1, 0) * 1e4).astype(np.int16)
            mask = arrays["msk"][..., 0]
        clear, none = np.isin(mask, (1, 2, 3)), np.zeros(mask.shape, dtype=bool)
        scenes.append(Scene(name=path.stem, pixels=pixels, clear=clear, spoilt=none, place=number))
    return population("cloud images", scenes)


def pair(data: Path) -> Population:
    """Chiapas at two dates (Landsat 7, Fmask, saturated at 16,000) and the clear coast of a real HLS granule."""
    scenes = []
    for path in sorted((data / "time-series/chiapas").glob("*stack.gtif")):
        stack = _read(path)
        pixels, mask = stack[:6], stack[7]
        spoilt = ((pixels == FILL) | (pixels == 16_000)).any(axis=0) | (mask == 255)
        scenes.append(Scene(name=path.name[9:16], pixels=pixels, clear=mask <= 1, spoilt=spoilt, place=0))
    granule = "HLS.L30.T10SFE.2019253T183445.v2.0"
    folder = data / "hls-archive" / granule
    pixels = np.concatenate([_read(folder / f"{granule}.B0{b}.tif") for b in (2, 3, 4, 5, 6, 7)])
    mask = _read(folder / f"{granule}.Fmask.tif")[0]
    spoilt = (pixels == FILL).any(axis=0) | (mask == 255)
    scenes.append(Scene(name="HLS coast", pixels=pixels, clear=(mask & 0b1010) == 0, spoilt=spoilt, place=1))
    return population("Chiapas and a coast", scenes)


def flood(data: Path) -> Population:
    """One Sentinel-2 L1C chip of Spain at 10 m with land and flood water by hand; the stratum is the dominant one."""
    folder = data / "labelled/flood"
    pixels = _read(folder / "Spain_7370579_S2Hand.tif")[[1, 2, 3, 8, 11, 12]]
    label = _read(folder / "Spain_7370579_LabelHand.tif")[0]
    scene = Scene(
        name="flood",
        pixels=pixels,
        clear=label >= 0,
        spoilt=(pixels == 0).any(axis=0),
        place=0,
        label=np.maximum(label, 0),
    )
    return population("flood chip", [scene])


FRESH: dict[str, Callable[[Path], Population]] = {"landsat": landsat, "cloud": cloud, "pair": pair, "flood": flood}
"""Name on the command line → population."""
