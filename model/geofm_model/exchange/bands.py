"""A network of fewer or otherwise ordered bands."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from geofm_model.exchange.description import Description
from geofm_model.models import Encoder, MaskedAutoencoder
from geofm_model.training.pixel_statistics import PixelStatistics

Model = TypeVar("Model", MaskedAutoencoder, Encoder)


def select_bands(model: Model, description: Description, bands: Sequence[str]) -> tuple[Model, Description]:
    """A copy that takes and predicts these bands alone, in this order, and its description.

    Its features are those of the whole network where all other bands are 0, which is their mean: columns of the patch
    embedding and rows of the prediction are cut out, nothing is invented.

    Raises
    ------
    ValueError
        For bands that the network has not learned, or twice the same.
    """
    known = description.statistics
    unknown = [band for band in bands if band not in known.bands]
    if unknown or not bands:
        raise ValueError(
            f"the network has no weights of {', '.join(unknown) or 'no band at all'}; it has {', '.join(known.bands)}"
        )
    description.check(model)
    at = [known.bands.index(band) for band in bands]
    statistics = PixelStatistics(
        bands=tuple(bands), mean=tuple(known.mean[i] for i in at), std=tuple(known.std[i] for i in at)
    )
    patching = replace(description.encoder.patching, bands=len(at))
    changed = replace(description, encoder=replace(description.encoder, patching=patching), statistics=statistics)
    return _cut(model, changed, at, len(known.bands)), changed


def _cut(model: Model, description: Description, at: list[int], of: int) -> Model:
    """A copy with some of `of` bands."""
    cut = copy.deepcopy(model)
    encoder = cut.encoder if isinstance(cut, MaskedAutoencoder) else cut
    encoder.config = description.encoder
    encoder.embed = _linear(_some(encoder.embed.weight, at, of, 1), encoder.embed.bias)
    if isinstance(cut, MaskedAutoencoder):
        predict = cut.decoder.predict
        cut.decoder.predict = _linear(_some(predict.weight, at, of, 0), _some(predict.bias, at, of, 0))
    return cut


def _some(values: Tensor, at: list[int], of: int, axis: int) -> Tensor:
    """Entries of some bands along an axis of patch numbers, in which bands are fastest: 0 rows, 1 columns."""
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    by_band = values.detach().reshape(*before, -1, of, *after)
    return by_band.index_select(axis + 1, torch.tensor(at, device=values.device)).reshape(*before, -1, *after)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.load_state_dict({"weight": weight, "bias": bias.detach()}, assign=True)
    return made
