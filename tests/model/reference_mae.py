"""A masked autoencoder of Prithvi's family by the plainest code, to compare with: everything dense, one step at a time.

Written after the published definition (Prithvi-EO and facebookresearch/mae): a Conv3d embeds all patches, tokens are
shuffled and put back, attention is two matrix products, the loss is over whole hidden patches.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geofm_model.models import MaskedAutoencoder


def sines(positions: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """[n] → [n, width]."""
    angles = positions[:, None] / 10_000 ** (np.arange(width // 2) / (width / 2))[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def grid_table(t: int, h: int, w: int, width: int) -> Tensor:
    """[1 + t·h·w, width], row by row."""
    rows = [np.zeros(width)]
    for i in range(t):
        for j in range(h):
            for k in range(w):
                parts = [(k, 6), (j, 6), (i, 4)]
                rows.append(np.concatenate([sines(np.array([float(p)]), width // 16 * s)[0] for p, s in parts]))
    return torch.from_numpy(np.array(rows)).float()


def attention(x: Tensor, block: nn.Module) -> Tensor:
    """Softmax of scaled products, head by head."""
    width = x.shape[-1]
    heads: int = block.heads  # type: ignore[assignment]
    size = width // heads
    mixed = torch.nn.functional.linear(x, block.qkv.weight, block.qkv.bias)  # type: ignore[arg-type]
    q, k, v = mixed.split(width, dim=-1)
    parts = []
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        scores = q[..., at] @ k[..., at].transpose(1, 2) / size**0.5
        parts.append(scores.softmax(-1) @ v[..., at])
    return torch.nn.functional.linear(torch.cat(parts, dim=-1), block.proj.weight, block.proj.bias)  # type: ignore[arg-type]


def transform(x: Tensor, block: nn.Module) -> Tensor:
    """One block."""
    x = x + attention(block.norm1(x), block)  # type: ignore[operator]
    return x + block.fc2(torch.nn.functional.gelu(block.fc1(block.norm2(x))))  # type: ignore[operator]


def metadata_table(module: nn.Module, year: Tensor, day: Tensor, lat: Tensor, lon: Tensor, per_date: int) -> Tensor:
    """[b, n, width] of dates and places, by their learned scales."""
    width: int = module.width  # type: ignore[assignment]
    half = width // 2
    rows = []
    for at in range(len(year)):
        when = [sines(values[at].double().numpy(), half) for values in (year, day)]
        where = [sines(values[at : at + 1].double().numpy(), half) for values in (lat, lon)]
        date, place = np.concatenate(when, axis=1), np.concatenate(where, axis=1)
        dates = torch.from_numpy(date).float() * module.date.scale  # type: ignore[union-attr, operator]
        places = torch.from_numpy(place).float() * module.place.scale  # type: ignore[union-attr, operator]
        rows.append(dates.repeat_interleave(per_date, 0) + places)
    return torch.stack(rows)


def loss_of(
    model: MaskedAutoencoder,
    image: Tensor,
    ids_shuffle: Tensor,
    keep: int,
    coords: tuple[Tensor, ...] | None = None,
    dropped: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(loss, predictions [b, n, numbers]) of an image [b, t, c, h, w] whose first `keep` shuffled tokens are seen.

    `dropped`, bool [b, c]: bands that are 0 in what is embedded, and whose pixels count in all tokens.
    """
    encoder, decoder = model.encoder, model.decoder
    size, (b, t, c, h, w) = encoder.config.patching.size, image.shape
    grid = (t, h // size, w // size)
    weight = encoder.embed.weight.reshape(-1, 1, size, size, c).permute(0, 4, 1, 2, 3)  # [D, C, 1, p, p]
    shown = image if dropped is None else image * (~dropped)[:, None, :, None, None]
    x = torch.nn.functional.conv3d(shown.transpose(1, 2), weight, encoder.embed.bias, stride=(1, size, size))
    x = x.flatten(2).transpose(1, 2)
    x = x + grid_table(*grid, encoder.config.width)[1:]
    if coords is not None:
        x = x + metadata_table(encoder.positions, *coords, grid[1] * grid[2])
    restore = ids_shuffle.argsort(dim=1)
    x = torch.gather(x, 1, ids_shuffle[:, :keep, None].expand(-1, -1, x.shape[-1]))
    x = torch.cat([encoder.cls.expand(b, -1, -1), x], dim=1)
    for block in encoder.blocks:
        x = transform(x, block)
    x = decoder.embed(encoder.norm(x))
    n = grid[0] * grid[1] * grid[2]
    tokens = torch.cat([x[:, 1:], decoder.hidden.expand(b, n - keep, -1)], dim=1)
    tokens = torch.gather(tokens, 1, restore[..., None].expand(-1, -1, tokens.shape[-1]))
    tokens = tokens + grid_table(*grid, decoder.config.width)[1:]
    if coords is not None:
        tokens = tokens + metadata_table(decoder.positions, *coords, grid[1] * grid[2])
    x = torch.cat([x[:, :1], tokens], dim=1)
    for block in decoder.blocks:
        x = transform(x, block)
    predicted = decoder.predict(decoder.norm(x))[:, 1:]
    target = image.reshape(b, t, c, grid[1], size, grid[2], size).permute(0, 1, 3, 5, 4, 6, 2).reshape(b, n, -1)
    hidden = torch.ones(b, n)
    hidden[:, :keep] = 0
    hidden = torch.gather(hidden, 1, restore)
    if dropped is None:
        errors = (predicted - target).square().mean(-1)
        return (errors * hidden).sum() / hidden.sum(), predicted
    by_band = (predicted - target).square().reshape(b, n, -1, c)
    counts = torch.maximum(hidden[:, :, None, None], dropped[:, None, None, :].float()).expand_as(by_band)
    return (by_band * counts).sum() / counts.sum(), predicted
