"""The masked autoencoder: encode what is seen, predict what is hidden, count only pixels that are valid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geofm_model.models.encoder import Block, Encoder, EncoderConfig, Metadata, Positions, initialise
from geofm_model.models.positions import Grid
from geofm_model.models.tokens import MaskPlan, chosen


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder; the defaults are Prithvi's for every encoder."""

    width: int = 512
    depth: int = 8
    heads: int = 16


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

    def forward(self, features: Tensor, grid: Grid, plan: MaskPlan, metadata: Metadata | None = None) -> Tensor:
        """[b, 1 + k, encoder's width] → predictions of the hidden tokens [b, n − k, numbers].

        Tokens go in as class, seen, hidden: attention does not ask for an order, positions tell it.
        """
        x = self.embed(features)
        b, k = plan.seen.shape
        # Of the weights' type: under autocast x is bfloat16, in which far places look alike.
        positions = self.positions(grid, self.hidden, metadata).expand(b, -1, -1)
        seen = x[:, 1:] + chosen(positions, plan.seen)
        hidden = self.hidden + chosen(positions, plan.hidden)
        x = torch.cat([x[:, :1], seen, hidden], dim=1)
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = self.predict(self.norm(x[:, 1 + k :]))
        return predicted


class MaskedAutoencoder(nn.Module):
    """An encoder and its decoder."""

    def __init__(self, encoder: EncoderConfig, decoder: DecoderConfig | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.decoder = Decoder(decoder or DecoderConfig(), encoder)

    def forward(self, vectors: Tensor, grid: Grid, plan: MaskPlan, metadata: Metadata | None = None) -> Tensor:
        """Predictions of the hidden tokens [b, n − k, numbers] from normalised patches [b, n, numbers]."""
        features = self.encoder(vectors, grid, seen=plan.seen, metadata=metadata)
        predicted: Tensor = self.decoder(features, grid, plan, metadata)
        return predicted


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """Squared errors of hidden pixels, as sums, so that parts of a global batch add up to its own mean."""

    total: Tensor
    """Σ w · v · e², of the predictions' type, float32 at least."""
    weight: Tensor
    """Σ w · v, the same."""

    def mean(self) -> Tensor:
        """The loss; 0 where nothing valid was hidden."""
        return self.total / self.weight.clamp(min=torch.finfo(self.weight.dtype).tiny)


def hidden_errors(
    predicted: Tensor, target: Tensor, valid: Tensor, *, weights: Tensor | None = None, normalise: bool = False
) -> Errors:
    """Errors of hidden tokens over valid pixels.

    Parameters
    ----------
    predicted, target : [b, m, numbers] of the hidden tokens
    valid : bool [b, m, numbers], True where a pixel may be used
    weights : [b] of samples; None takes all as equal
    normalise : each target patch is shifted and scaled to mean 0 and variance 1 over its valid pixels first (MAE's
        norm_pix_loss); the variance is the unbiased one
    """
    v = valid.to(torch.float32)
    target = target.float()
    if normalise:
        count = v.sum(-1, keepdim=True)
        mean = (target * v).sum(-1, keepdim=True) / count.clamp(min=1)
        spread = ((target - mean).square() * v).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
        target = (target - mean) / (spread + 1e-6).sqrt()
    w = v if weights is None else v * weights[:, None, None]
    return Errors(total=((predicted.float() - target).square() * w).sum(), weight=w.sum())
