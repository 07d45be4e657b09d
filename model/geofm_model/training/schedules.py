"""Learning rates as functions of the step, and which weights decay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

Shape = Literal["cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A factor of the peak learning rate at each step."""

    steps: int
    """Of the whole run."""
    warmup: int
    """Steps of linear rise from 0."""
    shape: Shape = "cosine"
    cooldown: float = 0.2
    """Share of the steps in which a constant rate falls, by 1 − √, to `least`."""
    least: float = 0.0
    """Factor after the last step."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < self.steps or not 0 <= self.cooldown <= 1 or not 0 <= self.least <= 1:
            raise ValueError(
                f"a schedule needs 0 ≤ warm-up < steps and shares between 0 and 1, got warm-up {self.warmup} of "
                f"{self.steps} steps, cool-down {self.cooldown}, least {self.least}"
            )

    def factor(self, step: int) -> float:
        """At a step, 0 ≤ step < steps; the first step after the warm-up has 1."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.shape == "cosine":
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            return self.least + (1 - self.least) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        falling = min(round(self.steps * self.cooldown), self.steps - self.warmup)
        done = (step - (self.steps - falling)) / falling if falling else 0.0
        return self.least + (1 - self.least) * (1 - math.sqrt(min(1.0, max(0.0, done))))


def peak_rate(base: float, batch_size: int) -> float:
    """The linear rule: rate per 256 samples × samples per step / 256."""
    return base * batch_size / 256


def decaying(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Parameter groups for AdamW: matrices decay; biases, norms, scales and single tokens do not."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.squeeze().ndim > 1].append(parameter)
    return [{"params": groups[True], "weight_decay": decay}, {"params": groups[False], "weight_decay": 0.0}]
