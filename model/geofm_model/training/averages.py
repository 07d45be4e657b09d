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
    def update(self, step: int, useless: Tensor) -> None:
        """Take in the weights after step `step`, from 0 on; nothing changes where it was `useless` (a bool)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        share = (1 - decay) * (~useless).to(torch.float32)  # on the device: nobody waits for it
        steps = torch._foreach_sub(self._weights, self._means)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(steps, share)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(self._means, steps)  # pyright: ignore[reportPrivateImportUsage]
