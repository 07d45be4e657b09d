"""Views of samples: some dates, a crop, a flip, and numbers that a network likes, all on the device of the pixels.

What a view shows is a pure function of (seed, epoch, sample, repeat): the same at every world size, batch and resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.streams import uniform

Flip = Literal["none", "columns", "both"]
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Which part of each of b samples is looked at."""

    size: int
    """Edge of the view in pixels."""
    row: Ids
    """[b] first row."""
    col: Ids
    """[b] first column."""
    dates: Ids
    """[b, k] positions of the dates that stay, ascending."""
    flips: NDArray[np.bool_]
    """[b, 2] whether rows, and columns, run backwards."""

    def __len__(self) -> int:
        return int(self.row.size)


def plan_views(
    sample: Tensor,
    epoch: Tensor,
    *,
    shape: Sequence[int],
    seed: int,
    size: int,
    dates: int | None = None,
    flip: Flip = "columns",
    repeat: int | Tensor = 0,
) -> Views:
    """Random views of the samples of a batch.

    Parameters
    ----------
    sample, epoch : int64 [b], on the CPU, as in Batch
    shape : (t, h, w) of the samples
    size : edge of the view, at most h and w; every position is equally likely
    dates : how many dates stay, every choice equally likely; None keeps all
    flip : `columns` mirrors half of the views west to east, `both` half of them north to south, too
    repeat : number of the view, where a sample is looked at more than once; one for all, or int64 [b]

    Example: samples of 4 dates and 256 × 256 px, size 224, dates 3 give views of 3 dates from row and column 0 to 32.
    """
    total, height, width = shape
    _check(total, height, width, size, dates)
    keys = (np.asarray(epoch), np.asarray(sample), np.broadcast_to(np.asarray(repeat), sample.shape))
    rooms = (height - size + 1, width - size + 1)
    row, col = (
        np.floor(uniform(seed, f"crop {axis}", *keys) * room).astype(np.int64)
        for axis, room in zip(("rows", "columns"), rooms, strict=True)
    )
    flips = np.stack([uniform(seed, f"flip {axis}", *keys) < 0.5 for axis in ("rows", "columns")], axis=1)
    allowed = np.array([flip == "both", flip != "none"])
    # The k dates with the smallest numbers of their own are a choice without favourites.
    each = uniform(seed, "dates", *(key[:, None] for key in keys), np.arange(total))
    chosen = np.sort(np.argsort(each, axis=1)[:, : total if dates is None else dates], axis=1)
    return Views(size=size, row=row, col=col, dates=chosen, flips=flips & allowed)


def central_views(count: int, *, shape: Sequence[int], size: int, dates: int | None = None) -> Views:
    """The middle of each sample and its first dates, unflipped: what evaluation looks at."""
    total, height, width = shape
    _check(total, height, width, size, dates)
    first = np.arange(total if dates is None else dates, dtype=np.int64)
    return Views(
        size=size,
        row=np.full(count, (height - size) // 2, dtype=np.int64),
        col=np.full(count, (width - size) // 2, dtype=np.int64),
        dates=np.tile(first, (count, 1)),
        flips=np.zeros((count, 2), dtype=np.bool_),
    )


def view_of(pixels: Tensor, views: Views) -> Tensor:
    """The views of some pixels, in memory of their own.

    [b, t, …, h, w] → [b, k, …, size, size] of the same type, on the same device, e.g. image (32, 4, 6, 256, 256) →
    (32, 3, 6, 224, 224), fmask (32, 4, 256, 256) → (32, 3, 224, 224).
    """
    size, kept = views.size, views.dates.shape[1]
    out = pixels.new_empty((len(views), kept, *pixels.shape[2:-2], size, size))
    for at, (row, col) in enumerate(zip(views.row.tolist(), views.col.tolist(), strict=True)):
        part = pixels[at, ..., row : row + size, col : col + size]
        backwards = [axis for axis, turned in zip((-2, -1), views.flips[at].tolist(), strict=True) if turned]
        for place, date in enumerate(views.dates[at].tolist()):
            out[at, place] = part[date].flip(backwards) if backwards else part[date]
    return out


def dates_of(values: Tensor, views: Views) -> Tensor:
    """The values of the dates that stay: [b, t] → [b, k]."""
    return values.gather(1, torch.from_numpy(views.dates).to(values.device))


def normalised(image: Tensor, valid: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Counts as numbers around 0: (count − mean) / std by band, and 0, the mean, where a pixel is not valid.

    Parameters
    ----------
    image : int16 [b, t, c, h, w]
    valid : bool [b, t, h, w], True where a pixel may be used
    mean, std : [c], in counts; the result has their type and device
    """
    scaled = (image.to(mean.dtype) - mean[:, None, None]) / std[:, None, None]
    return scaled.masked_fill(~valid.unsqueeze(2), 0.0)


def _check(total: int, height: int, width: int, size: int, dates: int | None) -> None:
    if not 1 <= size <= min(height, width):
        raise ValueError(f"a view of {size} px does not fit samples of {height} × {width} px: choose 1 to their edge")
    if dates is not None and not 1 <= dates <= total:
        raise ValueError(f"{dates} dates cannot be chosen of {total}: choose 1 to {total}")
