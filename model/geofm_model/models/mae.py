"""The masked autoencoder: encode what is seen, predict what is hidden, count only pixels that are valid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geofm_model.models.encoder import Block, Encoder, EncoderConfig, Metadata, Positions, check_shape, initialise
from geofm_model.models.masks import MaskPlan
from geofm_model.models.positions import Grid
from geofm_model.models.tokens import chosen


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder; the defaults are Prithvi's for every encoder."""

    width: int = 512
    """Numbers of a token; a multiple of 16 and of the heads."""
    depth: int = 8
    """Blocks."""
    heads: int = 16
    """Of the attention in each block."""

    def __post_init__(self) -> None:
        check_shape("decoder", self.width, self.depth, self.heads)


class Decoder(nn.Module):
    """Features of seen tokens to numbers of hidden ones."""

    def __init__(self, config: DecoderConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(encoder.width, config.width)
        self.positions = Positions(config.width, encoder.metadata)
        self.hidden = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, encoder.mlp_ratio, encoder.eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=encoder.eps)
        self.predict = nn.Linear(config.width, encoder.patching.numbers)
        initialise(self)
        nn.init.normal_(self.hidden, std=0.02)

    def forward(
        self, features: Float[Tensor, "b tokens width"], grid: Grid, plan: MaskPlan, metadata: Metadata | None = None
    ) -> Float[Tensor, "b p numbers"]:
        """Features of the class token and of seen tokens → predictions of the tokens of `plan.predicted`, in its order.

        Tokens go in as class, seen, hidden: attention does not ask for an order, positions tell it.
        """
        x = self.embed(features)
        k = plan.seen.shape[1]
        positions = self.positions(grid, x.device, metadata)
        seen = x[:, 1:] + chosen(positions, plan.seen)
        hidden = self.hidden + chosen(positions, plan.hidden)
        x = torch.cat([x[:, :1], seen, hidden], dim=1).to(self.hidden.dtype)
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x)
        x = last(x, 1 + k if plan.dropped is None else 1)
        predicted: Tensor = self.predict(self.norm(x))
        return predicted


class MaskedAutoencoder(nn.Module):
    """An encoder and its decoder."""

    def __init__(self, encoder: EncoderConfig, decoder: DecoderConfig | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.decoder = Decoder(decoder or DecoderConfig(), encoder)

    def forward(
        self, vectors: Float[Tensor, "b n numbers"], grid: Grid, plan: MaskPlan, metadata: Metadata | None = None
    ) -> Float[Tensor, "b p numbers"]:
        """Normalised patches of the whole grid → predictions of the tokens of `plan.predicted`, in its order."""
        features = self.encoder(vectors, grid, seen=plan.seen, dropped=plan.dropped, metadata=metadata)
        predicted: Tensor = self.decoder(features, grid, plan, metadata)
        return predicted


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """Squared errors of each sample as sums, so that parts of a global batch add up to its own mean."""

    total: Float[Tensor, "*b"]
    """Σ w · v · e² over the numbers to predict, float32; [b], or a scalar after :meth:`sum`."""
    weight: Float[Tensor, "*b"]
    """Σ w · v, the same."""

    def sum(self) -> Errors:
        """Of all samples together, as scalars."""
        return Errors(total=self.total.sum(), weight=self.weight.sum())

    def mean(self) -> Float[Tensor, ""]:
        """The loss of all samples together; 0 where nothing valid was to be predicted."""
        return self.total.sum() / self.weight.sum().clamp(min=torch.finfo(self.weight.dtype).tiny)


def hidden_errors(
    predicted: Float[Tensor, "b p numbers"],
    target: Float[Tensor, "b p numbers"],
    valid: Bool[Tensor, "b p numbers"],
    *,
    asked: Bool[Tensor, "b p numbers"] | None = None,
    weights: Float[Tensor, " b"] | None = None,
    normalise: bool = False,
) -> Errors:
    """Errors of predicted tokens over valid pixels, sample by sample.

    Parameters
    ----------
    valid : True where a pixel may be used
    asked : True for the numbers whose errors count; None counts all
    weights : of samples; None takes all as equal
    normalise : each target patch is shifted and scaled to mean 0 and variance 1 over its valid pixels first (MAE's
        norm_pix_loss), whether asked or not; the variance is the unbiased one
    """
    target = target.float()
    if normalise:
        mean, spread = patch_moments(target, valid)
        target = (target - mean) / spread
    counted = (valid if asked is None else valid & asked).to(torch.float32)
    total = ((predicted.float() - target).square() * counted).sum(dim=(1, 2))
    weight = counted.sum(dim=(1, 2))
    if weights is None:
        return Errors(total=total, weight=weight)
    return Errors(total=total * weights, weight=weight * weights)


def patch_moments(
    target: Float[Tensor, "b p numbers"], valid: Bool[Tensor, "b p numbers"]
) -> tuple[Float[Tensor, "b p 1"], Float[Tensor, "b p 1"]]:
    """Mean and spread of each patch over its valid numbers, as MAE's norm_pix_loss takes them off: the square root of
    the unbiased variance and 10⁻⁶.
    """
    v = valid.to(torch.float32)
    count = v.sum(-1, keepdim=True)
    mean = (target * v).sum(-1, keepdim=True) / count.clamp(min=1)
    spread = ((target - mean).square() * v).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return mean, (spread + 1e-6).sqrt()
