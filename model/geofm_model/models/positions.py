"""Where and when a token is, as sines and cosines: its place in the grid, its date, the place on Earth.

Base 10,000, sine half then cosine half, as in Prithvi and its ancestor facebookresearch/mae. Computed in float64 for
the grid at hand, never interpolated.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Float32, Float64, Real
from torch import Tensor, nn

Grid = tuple[int, int, int]
"""(t, h, w) in tokens."""


def sincos(positions: Real[Tensor, "*axes"], width: int) -> Float64[Tensor, "*axes {width}"]:
    """[…] → […, width]: the sines of position × 10000^(−2i/width), then the cosines; `width` is even."""
    steps = torch.arange(width // 2, dtype=torch.float64, device=positions.device)
    angles = positions.to(torch.float64).unsqueeze(-1) * 10_000.0 ** (-steps / (width / 2))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def grid_positions(grid: Grid, width: int) -> Float64[Tensor, "{1+grid[0]*grid[1]*grid[2]} {width}"]:
    """Positions of the class token, which are 0, and of all tokens in order (t, h, w), on the CPU.

    w, h and t take 6/16, 6/16 and 4/16 of the width, which is a multiple of 16.
    """
    if width % 16:
        raise ValueError(f"positions need a width that is a multiple of 16, got {width}")
    t, h, w = torch.meshgrid(*(torch.arange(size, device="cpu") for size in grid), indexing="ij")
    parts = [sincos(axis.reshape(-1), width // 16 * share) for axis, share in ((w, 6), (h, 6), (t, 4))]
    found = torch.cat(parts, dim=1)
    return torch.cat([found.new_zeros(1, width), found])


@lru_cache(maxsize=16)
def grid_table(grid: Grid, width: int, device: torch.device) -> Float32[Tensor, "{grid[0]*grid[1]*grid[2]} {width}"]:
    """Positions of all tokens as float32 on a device; not to be written to.

    Made once for all models: building it takes as long as a small step, and copying it makes the device wait. It
    belongs to no module, so state_dict, copies, averages, other devices and compilers do not meet it.
    """
    with torch.inference_mode(False):
        return grid_positions(grid, width)[1:].to(device, torch.float32)


class DateEmbedding(nn.Module):
    """Year and day of the year of each date, times a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, year: Real[Tensor, "b t"], day: Real[Tensor, "b t"]) -> Float[Tensor, "b t width"]:
        """Of year, and day of the year from 0; halves for either."""
        half = self.width // 2
        return self.scale * torch.cat([sincos(year, half), sincos(day, self.width - half)], dim=-1).to(self.scale.dtype)


class PlaceEmbedding(nn.Module):
    """Latitude and longitude of a sample, times a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, lat: Float[Tensor, " b"], lon: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        """Of degrees; halves for latitude and longitude."""
        half = self.width // 2
        return self.scale * torch.cat([sincos(lat, half), sincos(lon, self.width - half)], dim=-1).to(self.scale.dtype)
