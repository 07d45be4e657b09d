"""Mean and spread of each band in what a run draws from: one pair per run, frozen in its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.errors import StoreError
from geofm_model.loading.members import Members


@dataclass(frozen=True, kw_only=True)
class PixelStatistics:
    """Of valid pixels, in counts (reflectance × 10⁴)."""

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def tensors(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """mean and std, float32 [c]."""
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (self.mean, self.std))
        return mean, std


def pixel_statistics(members: Members, shares: Sequence[float] | None = None) -> PixelStatistics:
    """Statistics of the training splits of some members' stores, from the exact sums that the stores hold.

    Parameters
    ----------
    shares : relative weight of each dataset; None pools their pixels

    Raises
    ------
    StoreError
        When a band has no valid pixel, or only pixels of one value.
    """
    names = members.stores[0].header.bands
    means, spreads = [], []
    for band in names:
        parts = [store.statistics["train"][band] for store in members.stores]
        weights = _weights([part.count for part in parts], members.dataset, shares)
        if any(part.count == 0 for part, weight in zip(parts, weights, strict=True) if weight) or not weights.sum():
            raise StoreError(f"band {band} has no valid pixel in the training split: there is nothing to learn from")
        used = [(part, weight) for part, weight in zip(parts, weights / weights.sum(), strict=True) if weight]
        mean = sum(weight * part.mean for part, weight in used)
        # Around the common mean: a difference of large squares would lose the digits that count.
        spread = sum(weight * (part.std**2 + (part.mean - mean) ** 2) for part, weight in used)
        if spread <= 0:
            raise StoreError(f"band {band} has one value in all valid pixels of the training split: nothing to learn")
        means.append(float(mean))
        spreads.append(float(spread) ** 0.5)
    return PixelStatistics(bands=names, mean=tuple(means), std=tuple(spreads))


def _weights(counts: Sequence[int], dataset: Sequence[int], shares: Sequence[float] | None) -> NDArray[np.float64]:
    """Weight of each store: its pixels, or its part of its dataset's share."""
    pixels = np.array(counts, dtype=np.float64)
    if shares is None:
        return pixels
    if len(shares) != max(dataset) + 1:
        raise ValueError(f"{max(dataset) + 1} datasets need as many shares, got {len(shares)}")
    of_dataset = np.bincount(dataset, weights=pixels)
    pairs = zip(dataset, pixels.tolist(), strict=True)
    return np.array([shares[at] * own / of_dataset[at] if of_dataset[at] else 0.0 for at, own in pairs])
