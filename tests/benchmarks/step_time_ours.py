"""Our side of step_time.py: as geofm-train does it, with the pixels' validity, which TerraTorch knows nothing of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from step_time_loop import serve
from torch import Tensor

from geofm_model.models import (
    DecoderConfig,
    EncoderConfig,
    MaskedAutoencoder,
    chosen,
    hidden_errors,
    patches,
    plan_mask,
)
from geofm_model.training.allocator import prepare_memory
from geofm_model.training.masked import usable_tokens


def build(cell: dict[str, Any]) -> tuple[MaskedAutoencoder, Callable[[Tensor], Tensor]]:
    """See :data:`step_time_loop.Build`."""
    encoder = EncoderConfig(width=cell["width"], depth=cell["depth"], heads=cell["heads"])
    width, depth, heads = cell["decoder"]
    model = MaskedAutoencoder(encoder, DecoderConfig(width=width, depth=depth, heads=heads))
    grid = encoder.patching.grid((cell["dates"], cell["size"], cell["size"]))
    sample, epochs = torch.arange(cell["batch"]), count()
    all_valid = torch.ones(cell["batch"], cell["dates"], cell["size"], cell["size"], dtype=torch.bool)

    def loss_of(image: Tensor) -> Tensor:
        vectors = patches(image, encoder.patching)
        valid = patches(all_valid.unsqueeze(2).expand_as(image), encoder.patching)
        epoch, usable = torch.full_like(sample, next(epochs)), usable_tokens(all_valid, encoder.patching)
        plan = plan_mask(sample, epoch, grid=grid, ratio=0.75, seed=0, usable=usable)
        predicted = model(vectors, grid, plan)
        target, counted = chosen(vectors, plan.predicted), chosen(valid, plan.predicted)
        return hidden_errors(predicted, target, counted).mean()

    return model, loss_of


if __name__ == "__main__":
    prepare_memory()
    serve(build, (0, 1, 2, 3, 4))
