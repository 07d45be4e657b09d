"""Mask plans: which tokens of a sample a model sees, which it predicts, and which bands are withheld from it.

All objectives share them. A plan is a pure function of (seed, epoch, sample, repeat), and every sample of a batch has
as many seen and as many hidden tokens as the others, so that shapes are static.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.models.positions import Grid
from geofm_model.streams import uniform
from geofm_model.transfer import sent

Masking = Literal["random", "space", "time", "space-time", "dates"]
Keys = tuple[NDArray[np.int64], ...]
_LEVELS = 2.0**26
"""Steps in which columns and dates are ordered; a token's own number decides within a step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPlan:
    """What a model sees of each sample, and what it predicts; a token in neither `seen` nor `hidden` is ignored."""

    seen: Int64[Tensor, "b k"]
    """Places of seen tokens, ascending."""
    hidden: Int64[Tensor, "b m"]
    """Places of hidden tokens that are predicted, in all bands; ascending."""
    dropped: Bool[Tensor, "b c"] | None = None
    """Bands that are withheld from the seen tokens, too, which predict them; None where there are none."""

    @property
    def predicted(self) -> Int64[Tensor, "b p"]:
        """Places of tokens with a prediction, in its order: the hidden ones; with dropped bands seen, then hidden."""
        return self.hidden if self.dropped is None else torch.cat([self.seen, self.hidden], dim=1)

    def asked(self, numbers: int) -> Bool[Tensor, "b p numbers"] | None:
        """True for the numbers of predicted patches that the model was not shown; None where it is all of them."""
        if self.dropped is None:
            return None
        seen = of_patches(self.dropped, numbers).expand(-1, self.seen.shape[1], -1)
        return torch.cat([seen, seen.new_ones(*self.hidden.shape, numbers)], dim=1)


def of_patches(dropped: Bool[Tensor, "b c"], numbers: int) -> Bool[Tensor, "b 1 numbers"]:
    """Bands of a patch's numbers, bands fastest."""
    return dropped.repeat(1, numbers // dropped.shape[1]).unsqueeze(1)


def seen_count(tokens: int, ratio: float) -> int:
    """Tokens that are seen: ⌊n · (1 − ratio)⌋, at least 1 and fewer than all."""
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"the mask ratio must lie between 0 and 1, got {ratio}; 0 needs bands to drop")
    return min(max(1, int(tokens * (1 - ratio))), tokens - 1)


def plan_mask(
    sample: Int64[Tensor, " b"],
    epoch: Int64[Tensor, " b"],
    *,
    grid: Grid,
    ratio: float,
    seed: int,
    masking: Masking = "random",
    repeat: int | Int64[Tensor, " b"] = 0,
    usable: Bool[Tensor, "b n"] | None = None,
    dropped: Bool[Tensor, "b c"] | None = None,
    device: torch.device | str = "cpu",
) -> MaskPlan:
    """A mask of each sample of a batch; a pure function of (seed, epoch, sample, repeat).

    Where the number of hidden tokens is no multiple of what `masking` hides together, one column or date is seen in
    part, at tokens chosen by chance.

    Parameters
    ----------
    sample, epoch : on the CPU, as in Batch
    ratio : share of tokens that are hidden; 0, with dropped bands only, sees all
    masking : what is hidden together. `random`: nothing. `space`: columns of tokens through all dates, and `time`:
        dates (space-only and time-only sampling of Feichtenhofer et al. 2022, arXiv 2205.09113). `space-time`: both,
        so that the seen tokens are those of some places at some dates, about √(1 − ratio) of either. `dates`:
        consecutive dates, every run of them equally likely (contiguous timesteps of Presto, arXiv 2304.14065);
        dates in the middle are in more runs than the first and the last. Of a single date, `time` and `dates` hide
        random tokens
    usable : False for tokens without any valid pixel: they are seen last, so that the number of seen tokens is the
        same for all samples. None takes all as usable
    dropped : becomes the plan's
    device : of the plan

    Example: grid (4, 14, 14) and ratio 0.75 give 196 seen and 588 hidden tokens, with `dates` a first or last date.
    """
    keys = np.asarray(epoch), np.asarray(sample), np.broadcast_to(np.asarray(repeat), sample.shape)
    tokens = int(np.prod(grid))
    count = tokens if ratio == 0 and dropped is not None else seen_count(tokens, ratio)
    scores = sent(_scores(keys, grid, seed, masking, tokens - count), device)
    if usable is not None:
        scores = scores + 2 * _LEVELS * (~usable).to(scores.dtype)
    order = scores.argsort(dim=1, stable=True)
    seen, hidden = order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values
    return MaskPlan(seen=seen, hidden=hidden, dropped=dropped)


def plan_bands(
    sample: Int64[Tensor, " b"],
    epoch: Int64[Tensor, " b"],
    *,
    bands: int,
    drop: int,
    seed: int,
    repeat: int | Int64[Tensor, " b"] = 0,
    device: torch.device | str = "cpu",
) -> Bool[Tensor, "b bands"]:
    """`drop` of the `bands` of each sample, all choices equally likely; pure in (seed, epoch, sample, repeat)."""
    if not 0 < drop < bands:
        raise ValueError(f"{drop} of {bands} bands cannot be dropped: choose 1 to {bands - 1}")
    keys = np.asarray(epoch), np.asarray(sample), np.broadcast_to(np.asarray(repeat), sample.shape)
    ranks = _drawn(keys, seed, "mask bands", bands).argsort(axis=1).argsort(axis=1)
    return sent(ranks < drop, device)


def _scores(keys: Keys, grid: Grid, seed: int, masking: Masking, hidden: int) -> NDArray[np.float64]:
    """[b, n] from 0 to _LEVELS: the lowest are seen. Whole steps order columns and dates, the rest orders tokens."""
    t, h, w = grid
    own = _drawn(keys, seed, "mask tokens", t * h * w)
    if masking == "random":
        return own
    columns, dates = np.zeros((len(own), 1, h * w)), np.zeros((len(own), t, 1))
    if masking in ("space", "space-time"):
        columns = _drawn(keys, seed, "mask columns", h * w)[:, None, :]
    if masking in ("time", "space-time"):
        dates = _drawn(keys, seed, "mask dates", t)[:, :, None]
    if masking == "dates":
        # The dates nearest to a point are a run; what is seen in part lies at one of its ends.
        length = -(-hidden // (h * w))
        middle = length / 2 - 1 + _drawn(keys, seed, "mask dates", 1) * (t - length + 1)
        dates = 1 - np.abs(np.arange(t) - middle)[:, :, None] / t
    together = np.maximum(columns, dates).reshape(len(own), -1)
    return np.asarray(np.floor(together * (_LEVELS - 1)) + own)


def _drawn(keys: Keys, seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """[b, count] uniform numbers of their own for each sample."""
    return uniform(seed, purpose, *(key[:, None] for key in keys), np.arange(count))
