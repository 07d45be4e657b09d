"""The encoder: a vision transformer over dates and places, of Prithvi's family.

Only the tokens that are seen are embedded and encoded. Attention is torch's scaled_dot_product_attention.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from geofm_model.models.positions import DateEmbedding, Grid, PlaceEmbedding, grid_positions
from geofm_model.models.tokens import Patching, chosen


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of an encoder."""

    width: int
    depth: int
    heads: int
    patching: Patching = field(default_factory=Patching)
    mlp_ratio: float = 4.0
    eps: float = 1e-5
    """Of LayerNorm; Prithvi's training had 1e-6, TerraTorch has 1e-5."""
    metadata: bool = False
    """Date and place are embedded, too (Prithvi's TL variants)."""

    def __post_init__(self) -> None:
        if self.metadata and self.patching.dates != 1:
            raise ValueError(f"dates are embedded token by token: patches must have 1 date, got {self.patching.dates}")


SIZES = {
    "nano": EncoderConfig(width=192, depth=6, heads=3),
    "tiny": EncoderConfig(width=192, depth=12, heads=3),
    "100M": EncoderConfig(width=768, depth=12, heads=12),
    "300M": EncoderConfig(width=1024, depth=24, heads=16),
    "600M": EncoderConfig(width=1280, depth=32, heads=16, patching=Patching(size=14)),
}
"""Encoders by name; with Prithvi's decoder (512 wide, 8 blocks) they have the parameters of Prithvi's family."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Metadata:
    """When and where samples are."""

    year: Tensor
    """[b, t]."""
    day: Tensor
    """[b, t] day of the year, from 0."""
    lat: Tensor
    """[b] degrees north."""
    lon: Tensor
    """[b] degrees east."""
    kept: Tensor
    """bool [b], False where a sample's metadata are withheld from the model."""


class Block(nn.Module):
    """Attention, then a perceptron, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, int(width * mlp_ratio))
        self.fc2 = nn.Linear(int(width * mlp_ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, width] → the same shape."""
        x = x + self._attend(self.norm1(x))
        widened: Tensor = self.fc2(gelu(self.fc1(self.norm2(x))))
        return x + widened

    def _attend(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))
        return mixed


class Positions(nn.Module):
    """What tells tokens apart: places in the grid, and where asked for dates and places on Earth."""

    def __init__(self, width: int, metadata: bool) -> None:
        super().__init__()
        self.width = width
        self.date = DateEmbedding(width) if metadata else None
        self.place = PlaceEmbedding(width) if metadata else None
        self._known: dict[tuple[Grid, torch.device, torch.dtype], Tensor] = {}

    def forward(self, grid: Grid, like: Tensor, metadata: Metadata | None) -> Tensor:
        """[1 or b, n, width] for all tokens of a grid, of the type and on the device of `like`."""
        key = (grid, like.device, like.dtype)
        if key not in self._known:
            self._known[key] = grid_positions(grid, self.width)[1:].to(like)
        found: Tensor = self._known[key].unsqueeze(0)
        if metadata is None or self.date is None or self.place is None:
            return found
        dates: Tensor = self.date(metadata.year, metadata.day).repeat_interleave(grid[1] * grid[2], dim=1)
        places: Tensor = self.place(metadata.lat, metadata.lon).unsqueeze(1)
        return found + (dates + places) * metadata.kept[:, None, None]


class Encoder(nn.Module):
    """Patches to features."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.patching.numbers, config.width)
        self.positions = Positions(config.width, config.metadata)
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, config.eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        initialise(self)
        nn.init.normal_(self.cls, std=0.02)

    def forward(
        self, vectors: Tensor, grid: Grid, *, seen: Tensor | None = None, metadata: Metadata | None = None
    ) -> Tensor:
        """Features of the class token and of the seen tokens.

        Parameters
        ----------
        vectors : [b, n, numbers] normalised patches of the whole grid
        seen : int64 [b, k] places of the tokens that are seen; None sees all

        Returns
        -------
        [b, 1 + k, width]; the class token comes first, the others in the order of `seen`
        """
        positions: Tensor = self.positions(grid, vectors, metadata)
        if seen is None:
            tokens = self.embed(vectors) + positions
        else:
            positions = positions.expand(len(vectors), -1, -1)
            tokens = self.embed(chosen(vectors, seen)) + chosen(positions, seen)
        x = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x)
        return features


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases of all linear layers, as in facebookresearch/mae."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
