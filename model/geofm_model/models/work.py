"""How much a training step computes: multiplications and additions of its matrix products, as torch counts them."""

from __future__ import annotations

import math

from geofm_model.models.encoder import EncoderConfig
from geofm_model.models.mae import DecoderConfig
from geofm_model.models.positions import Grid


def forward_flops(
    encoder: EncoderConfig, decoder: DecoderConfig, grid: Grid, seen: int, *, predicted: int | None = None
) -> int:
    """Of one sample's way forward through a masked autoencoder.

    Parameters
    ----------
    grid : (t, h, w) in tokens
    seen : tokens that are embedded, see :func:`seen_count`
    predicted : tokens with a prediction; None takes those that are not seen, all with dropped bands
    """
    n, k = math.prod(grid), seen + 1
    asked = n - seen if predicted is None else predicted
    numbers, d, e = encoder.patching.numbers, encoder.width, decoder.width
    wide = encoder.depth * _block(k, k, d, encoder.mlp_ratio)
    narrow = (decoder.depth - 1) * _block(n + 1, n + 1, e, encoder.mlp_ratio)
    narrow += _block(n + 1, asked, e, encoder.mlp_ratio)
    ends = 2 * k * d * e + 2 * asked * e * numbers
    return _embedding(encoder, seen) + wide + ends + narrow


def step_flops(
    encoder: EncoderConfig, decoder: DecoderConfig, grid: Grid, seen: int, *, predicted: int | None = None
) -> int:
    """Of one sample's forward and backward; backward is twice forward, but pixels need no gradient."""
    return 3 * forward_flops(encoder, decoder, grid, seen, predicted=predicted) - _embedding(encoder, seen)


def _embedding(encoder: EncoderConfig, tokens: int) -> int:
    return 2 * tokens * encoder.patching.numbers * encoder.width


def _block(tokens: int, asked: int, width: int, mlp_ratio: float) -> int:
    """Queries, keys, values of all tokens; scores, mixtures, a matrix and the perceptron's two of those asked."""
    each = width + 2 * int(width * mlp_ratio)
    return 2 * tokens * width * 3 * width + 2 * asked * width * each + 4 * asked * tokens * width
