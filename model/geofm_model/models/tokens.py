"""Pixels as tokens: patches in order (t, h, w), and back.

A patch is a vector of s × p × q × c numbers (dates, rows, columns, bands), bands fastest, as in Prithvi.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from geofm_model.models.positions import Grid


@dataclass(frozen=True, kw_only=True)
class Patching:
    """How pixels are cut into patches."""

    size: int = 16
    """Edge in pixels."""
    dates: int = 1
    """Dates in a patch."""
    bands: int = 6
    """Bands of the stores, all of which are in a patch."""

    def __post_init__(self) -> None:
        if min(self.size, self.dates, self.bands) < 1:
            raise ValueError(f"a patch needs pixels, dates and bands, got {self.size}, {self.dates} and {self.bands}")

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


def patches(image: Shaped[Tensor, "b t c h w"], patching: Patching) -> Shaped[Tensor, "b n numbers"]:
    """[b, t, c, h, w] → [b, n, numbers], e.g. (2, 4, 6, 224, 224) in patches of 16 → (2, 784, 1536)."""
    b, t, c, h, w = image.shape
    gt, gh, gw = patching.grid((t, h, w))
    s, p = patching.dates, patching.size
    cut = image.reshape(b, gt, s, c, gh, p, gw, p)
    return cut.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(b, gt * gh * gw, patching.numbers)


def pixels(vectors: Shaped[Tensor, "b n numbers"], patching: Patching, grid: Grid) -> Shaped[Tensor, "b t c h w"]:
    """Inverse of :func:`patches`: [b, n, numbers] → [b, t, c, h, w]."""
    (gt, gh, gw), s, p, c = grid, patching.dates, patching.size, patching.bands
    cut = vectors.reshape(-1, gt, gh, gw, s, p, p, c).permute(0, 1, 4, 7, 2, 5, 3, 6)
    return cut.reshape(-1, gt * s, c, gh * p, gw * p)


def chosen(values: Shaped[Tensor, "s n d"], places: Int64[Tensor, "b k"]) -> Shaped[Tensor, "b k d"]:
    """The values at some places of each sample: [b, n, d] and [b, k] → [b, k, d]; [1, n, d] are those of all samples.

    Places lie below n: others would find another sample's. Whole rows are copied, several times as fast as torch's
    gather number by number.
    """
    (s, n, d), (b, k) = values.shape, places.shape
    if s not in (1, b):
        raise ValueError(f"places of {b} samples need values of as many, or of one for all, got {s}")
    if s != 1:
        places = places + torch.arange(0, b * n, n, device=places.device).unsqueeze(1)
    return values.reshape(s * n, d).index_select(0, places.reshape(-1)).reshape(b, k, d)
