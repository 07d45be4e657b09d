"""Real patches as a population: pixels, strata, descriptor, entropy, and a feature space that no design looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio

from geofm_sampling.hilbert import hilbert_index
from geofm_sampling.information import BINS, descriptors, spectral_entropies

EDGE = 16
"""Overview pixels per patch edge: what the look of a real run gives."""
LAND_COVER = {1: "cropland", 2: "bamboo", 3: "bare soil", 4: "coffee", 5: "forest", 6: "wetland"}
Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Population:
    """N patches."""

    name: str
    pixels: Array
    """[N, B, P, P] int16, reflectance × 10⁴, −9999 without data."""
    stratum: Array
    """(N,) land-cover class or city."""
    names: tuple[str, ...]
    """Of the strata."""
    ground: Array
    """(N,) number of the ground that a patch shows; equal for two dates of one place."""
    shares: Array
    """(N, C) shares of kinds of surface in the patch: what is estimated beside the band means."""
    order: Array
    """(N,) place on a Hilbert curve within the scene, scenes one after the other."""

    def __post_init__(self) -> None:
        step = self.pixels.shape[-1] // EDGE
        small = np.ascontiguousarray(self.pixels[:, :, step // 2 :: step, step // 2 :: step])
        valid = (small != -9999).all(axis=1)
        object.__setattr__(self, "entropy", spectral_entropies(small, valid).astype(float))
        object.__setattr__(self, "descriptor", descriptors(small, valid).astype(float))
        object.__setattr__(self, "features", convolution_features(self.pixels))
        object.__setattr__(self, "histogram", histograms(self.pixels))

    entropy: Array = field(init=False)
    """(N,) bits, of the overview."""
    descriptor: Array = field(init=False)
    """(N, 12) of the overview."""
    features: Array = field(init=False)
    """(N, 32) of the full pixels: :func:`convolution_features`."""
    histogram: Array = field(init=False)
    """(N, B, BINS) pixels per bin of √reflectance, full pixels."""


def histograms(pixels: Array) -> Array:
    """Counts of √reflectance per patch and band, fill left out."""
    code = np.minimum(BINS * np.sqrt(np.clip(pixels, 0, 10_000) / 10_000), BINS - 1).astype(np.int64)
    code = np.where(pixels == -9999, BINS, code).reshape(*pixels.shape[:2], -1)
    return np.stack([[np.bincount(band, minlength=BINS + 1)[:BINS] for band in patch] for patch in code])


def convolution_features(pixels: Array, filters: int = 256, parts: int = 32) -> Array:
    """Random convolutional features (Rolf et al. 2021, Nature Communications 12:4392), standardised by their PCA.

    Whitened 3 × 3 patches of the population as filters, rectified, averaged over the patch: texture and colour
    together, for no task in particular. None of the designs looks at them.
    """
    rng = np.random.default_rng(2021)
    x = np.sqrt(np.clip(pixels, 0, None) / 1e4).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    n, B, H, W = windows.shape[:4]
    flat = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, H * W, B * 9)
    some = flat[rng.integers(0, n, 20_000), rng.integers(0, H * W, 20_000)]
    mean = some.mean(axis=0)
    value, vector = np.linalg.eigh(np.cov((some - mean).T))
    whiten = (vector / np.sqrt(value + 1e-4)) @ vector.T
    bank = (some[:filters] - mean) @ whiten
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    weight = (whiten @ bank.T).astype(np.float32)
    pooled = np.stack([np.maximum((patch - mean) @ weight, 0).mean(axis=0) for patch in flat])
    centred = pooled - pooled.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return (u * s)[:, :parts] / np.sqrt((s**2).sum() / len(u))


def surfaces(pixels: Array) -> Array:
    """Shares of vegetation (NDVI above 0.4), water (MNDWI above 0) and the rest, (N, 3)."""
    _, green, red, nir, swir, _ = (pixels[:, i].astype(float) for i in range(6))
    data = pixels[:, 0] != -9999
    vegetation = data & (nir - red > 0.4 * (nir + red))
    water = data & ~vegetation & (green > swir)
    shares = [
        part.sum(axis=(1, 2)) / data.sum(axis=(1, 2)) for part in (vegetation, water, data & ~vegetation & ~water)
    ]
    return np.stack(shares, axis=1)


def _windows(height: int, width: int, edge: int) -> list[tuple[int, int]]:
    return [(r, c) for r in range(0, height - edge + 1, edge) for c in range(0, width - edge + 1, edge)]


def oscd(folder: Path, edge: int = 64) -> Population:
    """Patches of 16 cities at two dates; a patch may lack a fifth of its pixels (the slanted edge of a scene)."""
    pixels, city, ground, order = [], [], [], []
    cities = sorted({path.name.rpartition("_")[0] for path in folder.glob("*.tif")})
    for number, name in enumerate(cities):
        for date in (1, 2):
            with rasterio.open(folder / f"{name}_{date}.tif") as dataset:
                scene = dataset.read()
            for row, col in _windows(*scene.shape[1:], edge):
                patch = scene[:, row : row + edge, col : col + edge].astype(np.int32)
                if (patch == 0).any(axis=0).mean() <= 0.2:
                    pixels.append(np.where(patch == 0, -9999, np.minimum(patch, 32_000)).astype(np.int16))
                    city.append(number)
                    ground.append((number << 20) + (row << 10) + col)
                    order.append((number << 40) + int(hilbert_index(col // edge, row // edge)) * 2 + date - 1)
    stratum = np.array(city)
    return Population(
        name=f"cities, {edge} px",
        pixels=np.stack(pixels),
        stratum=stratum,
        names=tuple(cities),
        ground=np.array(ground),
        shares=surfaces(np.stack(pixels)),
        order=np.array(order),
    )


def gewata(folder: Path, edge: int = 32) -> Population:
    """Patches of one Landsat scene, more than half labelled; the stratum is the dominant land cover."""
    with rasterio.open(folder / "gewata_6band.tif") as dataset:
        scene = dataset.read()
    with rasterio.open(folder / "lulcGewata.tif") as dataset:
        label = dataset.read(1)
    pixels, shares, ground, order = [], [], [], []
    for row, col in _windows(*label.shape, edge):
        window = label[row : row + edge, col : col + edge]
        if (window != 255).mean() > 0.5:
            pixels.append(scene[:, row : row + edge, col : col + edge])
            shares.append(np.bincount(window[window != 255], minlength=7)[1:7] / (window != 255).sum())
            ground.append((row << 20) + col)
            order.append(int(hilbert_index(col // edge, row // edge)))
    share = np.stack(shares)
    kept, stratum = np.unique(share.argmax(axis=1), return_inverse=True)
    return Population(
        name=f"land cover, {edge} px",
        pixels=np.stack(pixels).astype(np.int16),
        stratum=stratum,
        names=tuple(LAND_COVER[code + 1] for code in kept),
        ground=np.array(ground),
        shares=share,
        order=np.array(order),
    )
