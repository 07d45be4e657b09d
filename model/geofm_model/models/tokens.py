"""Pixels as tokens: patches in order (t, h, w), and which of them a model sees.

A patch is a vector of s × p × q × c numbers (dates, rows, columns, bands), bands fastest, as in Prithvi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.models.positions import Grid
from geofm_model.streams import uniform

Masking = Literal["random", "space", "time"]


@dataclass(frozen=True, kw_only=True)
class Patching:
    """How pixels are cut into patches."""

    size: int = 16
    """Edge in pixels."""
    dates: int = 1
    """Dates in a patch."""
    bands: int = 6

    @property
    def numbers(self) -> int:
        """Length of a patch as a vector."""
        return self.dates * self.size * self.size * self.bands

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        """Patches along (t, h, w) of pixels (t, h, w); ValueError where they do not fit."""
        t, h, w = shape
        if t % self.dates or h % self.size or w % self.size:
            raise ValueError(
                f"{t} dates of {h} × {w} px are no whole patches of {self.dates} × {self.size} × {self.size}: choose "
                "another view or patch size"
            )
        return t // self.dates, h // self.size, w // self.size


def patches(image: Tensor, patching: Patching) -> Tensor:
    """[b, t, c, h, w] → [b, n, numbers], e.g. (2, 4, 6, 224, 224) in patches of 16 → (2, 784, 1536)."""
    b, t, c, h, w = image.shape
    gt, gh, gw = patching.grid((t, h, w))
    s, p = patching.dates, patching.size
    cut = image.reshape(b, gt, s, c, gh, p, gw, p)
    return cut.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(b, gt * gh * gw, patching.numbers)


def pixels(vectors: Tensor, patching: Patching, grid: Grid) -> Tensor:
    """Inverse of :func:`patches`: [b, n, numbers] → [b, t, c, h, w]."""
    (gt, gh, gw), s, p, c = grid, patching.dates, patching.size, patching.bands
    cut = vectors.reshape(-1, gt, gh, gw, s, p, p, c).permute(0, 1, 4, 7, 2, 5, 3, 6)
    return cut.reshape(-1, gt * s, c, gh * p, gw * p)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPlan:
    """Which tokens of each sample a model sees, and which it has to predict; every sample has as many of each."""

    seen: Tensor
    """int64 [b, k] places of seen tokens, ascending."""
    hidden: Tensor
    """int64 [b, n − k] places of the others, ascending."""


def seen_count(tokens: int, ratio: float) -> int:
    """Tokens that are seen: ⌊n · (1 − ratio)⌋, at least 1 and fewer than all."""
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"the mask ratio must lie between 0 and 1, got {ratio}")
    return min(max(1, int(tokens * (1 - ratio))), tokens - 1)


def plan_mask(
    sample: Tensor,
    epoch: Tensor,
    *,
    grid: Grid,
    ratio: float,
    seed: int,
    masking: Masking = "random",
    repeat: int | Tensor = 0,
    usable: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> MaskPlan:
    """A mask of each sample of a batch; a pure function of (seed, epoch, sample, repeat).

    Parameters
    ----------
    sample, epoch : int64 [b], on the CPU, as in Batch
    ratio : share of tokens that are hidden
    masking : `random` tokens; whole columns of tokens through all dates (`space`); whole dates (`time`)
    usable : bool [b, n], False for tokens without any valid pixel: they are seen last, so that the number of seen
        tokens is the same for all samples. None takes all as usable
    device : of the plan
    """
    keys = np.asarray(epoch), np.asarray(sample), np.broadcast_to(np.asarray(repeat), sample.shape)
    scores = torch.from_numpy(_scores(keys, grid, seed, masking)).to(device)
    if usable is not None:
        scores = scores + 2.0 * (~usable).to(scores.dtype)
    order = scores.argsort(dim=1, stable=True)
    count = seen_count(order.shape[1], ratio)
    return MaskPlan(seen=order[:, :count].sort(dim=1).values, hidden=order[:, count:].sort(dim=1).values)


def _scores(keys: tuple[NDArray[np.int64], ...], grid: Grid, seed: int, masking: Masking) -> NDArray[np.float64]:
    """[b, n]: the lowest are seen. Equal ones, of a column or a date, go together."""
    t, h, w = grid
    shape = {"random": (t, h, w), "space": (1, h, w), "time": (t, 1, 1)}[masking]
    count = int(np.prod(shape))
    drawn = uniform(seed, f"mask {masking}", *(key[:, None] for key in keys), np.arange(count))
    spread = np.broadcast_to(drawn.reshape(-1, *shape), (len(drawn), t, h, w))
    return np.array(spread.reshape(-1, t * h * w))


def chosen(values: Tensor, places: Tensor) -> Tensor:
    """The values at some places of each sample: [b, n, d] and [b, k] → [b, k, d]."""
    return values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
