"""Errors on held-out samples: fixed views and masks, weighted by design, with intervals; overall and by stratum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.evaluation.estimates import Estimate, ratio_estimates
from geofm_model.loading import Batch
from geofm_model.models import MaskedAutoencoder
from geofm_model.training.heldout import Chosen
from geofm_model.training.learner import Learner
from geofm_model.training.masked import baseline_errors, errors_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """Looks at the held-out split."""

    learner: Learner
    samples: Chosen
    every: int
    name: str = "validation"

    def look(self, step: int) -> Mapping[str, object]:
        """Loss, and that of the average's weights, beside what the mean of each band would give."""
        networks = [self.learner.model, *([self.learner.average.model] if self.learner.average is not None else [])]
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # the last batch has another shape
            members, sums = self.samples.each(lambda batch: self._errors(batch, networks), 2 + len(networks))
        known = self.samples.loader.members
        weight = np.ones(members.size) if known.design is None else known.design[members]
        stratum, names = self.samples.strata(members)
        block = self.samples.blocks(members)
        if not np.isfinite(sums).all():
            return {"samples": members.size, "loss": None}
        counts, baseline = sums[:, 0], sums[:, 1]
        if not (weight * counts).any():
            return {"samples": 0}
        design = {"weight": weight, "stratum": stratum, "block": block}
        found = ratio_estimates(sums[:, 2], counts, **design)
        others = {
            "baseline": ratio_estimates(baseline, counts, **design),
            "left": ratio_estimates(sums[:, 2], baseline, **design) if (weight * baseline).any() else None,
            "average_loss": ratio_estimates(sums[:, 3], counts, **design) if len(networks) > 1 else None,
        }
        each = {name: part for name, part in others.items() if part is not None}
        return {
            "intervals": "strata" if block is None else "blocks",
            **_numbers(found.overall, {name: part.overall for name, part in each.items()}),
            "strata": {
                names[at]: _numbers(
                    one, {name: part.by_stratum[at] for name, part in each.items() if at in part.by_stratum}
                )
                for at, one in found.by_stratum.items()
            },
        }

    def lines(self, found: Mapping[str, object]) -> list[str]:
        """For people."""
        if not found["samples"]:
            return ["  held-out samples: nothing valid was hidden"]
        if found["loss"] is None:
            return ["  held-out samples: the network's errors are not finite"]
        between = "" if found["low"] is None else f" ({found['low']:.4f} to {found['high']:.4f})"
        average = f", average of weights {found['average_loss']:.4f}" if "average_loss" in found else ""
        skill = f", skill {found['skill']:.3f}" if "skill" in found else ""
        return [
            f"  {found['samples']:,} held-out samples: loss {found['loss']:.4f}{between}{average}, mean of each band "
            f"{found['baseline']:.4f}{skill}"
        ]

    def _errors(self, batch: Batch, networks: Sequence[MaskedAutoencoder]) -> Tensor:
        """[b, 2 + networks]: valid hidden numbers, the baseline's squared errors, and each network's."""
        task = self.learner.task
        prepared = self.learner.preparation(batch, train=False)
        base = baseline_errors(prepared, task)
        with self.learner.autocast():
            found = [errors_of(network, prepared, task).total for network in networks]
        return torch.stack([base.weight, base.total, *found], dim=1)


def _numbers(loss: Estimate, others: Mapping[str, Estimate]) -> dict[str, float | int | None]:
    """Plain numbers of a loss with its interval, and of what stands beside it."""
    found: dict[str, float | int | None] = {
        "samples": loss.samples,
        "loss": loss.value,
        "low": loss.low,
        "high": loss.high,
    }
    found |= {name: one.value for name, one in others.items() if name != "left"}
    if "left" in others:
        left = others["left"]
        found["skill"] = 1 - left.value
        found["skill_low"] = None if left.high is None else 1 - left.high
        found["skill_high"] = None if left.low is None else 1 - left.low
    return found
