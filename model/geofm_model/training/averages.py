"""A moving average of a network's weights: less noisy than the last ones, and what is exported."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Average(Generic[Network]):
    """Exponential moving average of all weights, on their device.

    The decay rises from 0.1 as (1 + step) / (10 + step) up to `decay`, so that the first random weights are soon
    forgotten.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.model: Network = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self._means: list[Tensor] = list(self.model.parameters())
        self._weights: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        # One kernel for all weights, as torch's own AveragedModel does it.
        torch._foreach_lerp_(self._means, self._weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
