"""Views of samples: some dates, a crop, a flip, and numbers that a network likes, all on the device of the pixels.

What a view shows is a pure function of (seed, epoch, sample, repeat): the same at every world size, batch and resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.streams import uniform
from geofm_model.transfer import sent

Flip = Literal["none", "columns", "both"]
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Which part of each of b samples is looked at."""

    size: int
    """Edge of the view in pixels."""
    row: Int64[Ids, " b"]
    """First row."""
    col: Int64[Ids, " b"]
    """First column."""
    dates: Int64[Ids, "b k"]
    """Positions of the dates that stay, ascending."""
    flips: Bool[NDArray[np.bool_], "b 2"]
    """Whether rows, and columns, run backwards."""

    def __len__(self) -> int:
        return int(self.row.size)


def plan_views(
    sample: Int64[Tensor, " b"],
    epoch: Int64[Tensor, " b"],
    *,
    shape: Sequence[int],
    seed: int,
    size: int,
    dates: int | None = None,
    flip: Flip = "columns",
    repeat: int | Int64[Tensor, " b"] = 0,
) -> Views:
    """Random views of the samples of a batch.

    Parameters
    ----------
    sample, epoch : on the CPU, as in Batch
    shape : (t, h, w) of the samples
    size : edge of the view, at most h and w; every position is equally likely
    dates : how many dates stay, every choice equally likely; None keeps all
    flip : `columns` mirrors half of the views west to east, `both` half of them north to south, too
    repeat : number of the view, where a sample is looked at more than once; one for all, or one each

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


def view_of(pixels: Shaped[Tensor, "b t *c h w"], views: Views) -> Shaped[Tensor, "b k *c size size"]:
    """The views of some pixels, in memory of their own.

    Of the same type, on the same device, e.g. image (32, 4, 6, 256, 256) → (32, 3, 6, 224, 224), fmask (32, 4, 256,
    256) → (32, 3, 224, 224). On a CPU slices are copied, 20 ms for that image on two cores, where gathering takes 70;
    elsewhere a handful of kernels gather them, where slices would be a thousand.
    """
    return _sliced(pixels, views) if pixels.device.type == "cpu" else _gathered(pixels, views)


def _sliced(pixels: Tensor, views: Views) -> Tensor:
    size, kept = views.size, views.dates.shape[1]
    out = pixels.new_empty((len(views), kept, *pixels.shape[2:-2], size, size))
    for at, (row, col) in enumerate(zip(views.row.tolist(), views.col.tolist(), strict=True)):
        part = pixels[at, ..., row : row + size, col : col + size]
        backwards = [axis for axis, turned in zip((-2, -1), views.flips[at].tolist(), strict=True) if turned]
        for place, date in enumerate(views.dates[at].tolist()):
            out[at, place] = part[date].flip(backwards) if backwards else part[date]
    return out


def _gathered(pixels: Tensor, views: Views) -> Tensor:
    """By one index of planes, rows and columns, which are sent in one piece."""
    (b, t, *bands), size, device = pixels.shape[:-2], views.size, pixels.device
    where = sent(np.column_stack([views.row, views.col, views.flips, views.dates]), device)
    start, turned, dates = where[:, 0:2, None], where[:, 2:4, None] > 0, where[:, 4:]
    along = torch.arange(size, device=device)
    lines = start + torch.where(turned, size - 1 - along, along)  # [b, 2, size]
    planes = pixels.reshape(b, t, -1, *pixels.shape[-2:])  # [b, t, c, h, w], c = 1 for fmask
    found = planes[
        torch.arange(b, device=device).view(-1, 1, 1, 1, 1),
        dates.view(b, -1, 1, 1, 1),
        torch.arange(planes.shape[2], device=device).view(-1, 1, 1),
        lines[:, 0].view(b, 1, 1, size, 1),
        lines[:, 1].view(b, 1, 1, 1, size),
    ]
    return found.reshape(b, -1, *bands, size, size)


def dates_of(values: Shaped[Tensor, "b t"], views: Views) -> Shaped[Tensor, "b k"]:
    """The values of the dates that stay."""
    return values.gather(1, sent(views.dates, values.device))


def normalised(
    image: Int16[Tensor, "b t c h w"],
    valid: Bool[Tensor, "b t h w"],
    mean: Float[Tensor, " c"],
    std: Float[Tensor, " c"],
) -> Float[Tensor, "b t c h w"]:
    """Counts as numbers around 0: (count − mean) / std by band, and 0, the mean, where a pixel is not valid.

    Parameters
    ----------
    valid : True where a pixel may be used
    mean, std : of each band, in counts; the result has their type and device
    """
    scaled = image.to(mean.dtype).sub_(mean[:, None, None]).div_(std[:, None, None])
    return scaled.masked_fill_(~valid.unsqueeze(2), 0.0)


def _check(total: int, height: int, width: int, size: int, dates: int | None) -> None:
    if not 1 <= size <= min(height, width):
        raise ValueError(f"a view of {size} px does not fit samples of {height} × {width} px: choose 1 to their edge")
    if dates is not None and not 1 <= dates <= total:
        raise ValueError(f"{dates} dates cannot be chosen of {total}: choose 1 to {total}")
