"""The encoder: a vision transformer over dates and places, of Prithvi's family.

Only the tokens that are seen are embedded and encoded. Attention is torch's scaled_dot_product_attention.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from geofm_model.models.masks import of_patches
from geofm_model.models.positions import DateEmbedding, Grid, PlaceEmbedding, grid_table
from geofm_model.models.tokens import Patching, chosen


def check_shape(name: str, width: int, depth: int, heads: int) -> None:
    """ValueError where no network has this shape."""
    if depth < 1 or heads < 1 or width < 16 or width % heads or width % 16:
        raise ValueError(
            f"the {name} needs a depth of at least 1 and a width that is a multiple of 16 and of its heads, got width "
            f"{width}, depth {depth}, heads {heads}"
        )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of an encoder."""

    width: int
    """Numbers of a token; a multiple of 16 and of the heads."""
    depth: int
    """Blocks."""
    heads: int
    """Of the attention in each block."""
    patching: Patching = field(default_factory=Patching)
    """How pixels become tokens."""
    mlp_ratio: float = 4.0
    """Width of each block's perceptron in widths of a token."""
    eps: float = 1e-5
    """Of LayerNorm; Prithvi's training had 1e-6, TerraTorch has 1e-5."""
    metadata: bool = False
    """Date and place are embedded, too (Prithvi's TL variants)."""

    def __post_init__(self) -> None:
        check_shape("encoder", self.width, self.depth, self.heads)
        if not (self.mlp_ratio > 0 and self.eps > 0 and int(self.width * self.mlp_ratio) > 0):
            raise ValueError(f"mlp_ratio and eps must be above 0, got {self.mlp_ratio} and {self.eps}")
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

    year: Real[Tensor, "b t"]
    """Of each date, Gregorian."""
    day: Real[Tensor, "b t"]
    """Day of the year, from 0."""
    lat: Float[Tensor, " b"]
    """Degrees north."""
    lon: Float[Tensor, " b"]
    """Degrees east."""
    kept: Bool[Tensor, " b"]
    """False where a sample's metadata are withheld from the model."""


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

    def forward(self, x: Float[Tensor, "b n width"], first: int = 0) -> Float[Tensor, "b asked width"]:
        """Tokens to tokens; each looks at all of its sample. Those before `first` are looked at and not computed."""
        x = x[:, first:] + self._attend(self.norm1(x), first)
        widened: Tensor = self.fc2(gelu(self.fc1(self.norm2(x))))
        return x + widened

    def _attend(self, x: Tensor, first: int) -> Tensor:
        b, n, width = x.shape
        parts = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        mixed: Tensor = self.proj(attention(q[:, :, first:], k, v).transpose(1, 2).reshape(b, n - first, width))
        return mixed


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's scaled_dot_product_attention of [b, heads, n, d].

    On the CPU in float32 or more, since its kernel's way back in bfloat16 is slow, and of many tokens on parts that are
    laid out for themselves: the kernel is up to 14 % slower on interleaved ones; of few tokens the copies cost as much.
    """
    if q.device.type != "cpu":
        return scaled_dot_product_attention(q, k, v)
    if k.shape[2] >= LAID_APART:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    inside = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        return scaled_dot_product_attention(q.to(inside), k.to(inside), v.to(inside)).to(q.dtype)


LAID_APART = 256
"""Tokens, from which on attention on CPUs has its parts laid out for themselves."""


class Positions(nn.Module):
    """What tells tokens apart: places in the grid, and where asked for dates and places on Earth."""

    def __init__(self, width: int, metadata: bool) -> None:
        super().__init__()
        self.width = width
        self.date = DateEmbedding(width) if metadata else None
        self.place = PlaceEmbedding(width) if metadata else None

    def forward(
        self, grid: Grid, device: torch.device, metadata: Metadata | None
    ) -> Float[Tensor, "1 n width"] | Float[Tensor, "b n width"]:
        """Of all tokens of a grid, float32 under autocast, too: bfloat16 would make far places look alike."""
        found = grid_table(grid, self.width, device).unsqueeze(0)
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
        self,
        vectors: Float[Tensor, "b n numbers"],
        grid: Grid,
        *,
        seen: Int64[Tensor, "b k"] | None = None,
        dropped: Bool[Tensor, "b c"] | None = None,
        metadata: Metadata | None = None,
    ) -> Float[Tensor, "b tokens width"]:
        """Features of the class token, which comes first, and of the seen tokens in the order of `seen`.

        Parameters
        ----------
        vectors : normalised patches of the whole grid
        seen : places of the tokens that are seen; None sees all
        dropped : True for bands that read 0, the mean, in all patches of a sample
        """
        positions: Tensor = self.positions(grid, vectors.device, metadata)
        if seen is not None:
            positions = chosen(positions, seen)
            vectors = chosen(vectors, seen)
        if dropped is not None:
            vectors = vectors.masked_fill(of_patches(dropped, vectors.shape[2]), 0.0)
        tokens = self.embed(vectors) + positions
        x = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1).to(self.cls.dtype)
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


def compile_blocks(module: nn.Module) -> None:
    """Compiles each block of a model, in place; parameters, their names and copies of the model stay as they are.

    Blocks of one shape share one compilation. Shapes are static: an encoder's and a decoder's are two programs, and so
    are training, evaluation, and a batch of another size; torch gives up after 8.
    """
    for part in module.modules():
        if isinstance(part, Block):
            part.compile(dynamic=False)
