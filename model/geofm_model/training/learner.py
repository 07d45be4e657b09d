"""One optimizer step: errors of all parts and views of the global batch, their gradient, AdamW.

The loss of a step is Σ w·v·e² / Σ w·v over the hidden, valid pixels of the global batch: parts, repeated views and
ranks each add their gradient of the numerator, and the one division comes last, inside the optimizer. So neither the
number of processes nor the parts of a step change what is learnt (means of means would). A step with nothing valid, or
with a gradient that is not finite, changes nothing and is counted. On a GPU nothing waits for the device: what a step
found is read when the next one has been launched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geofm_model.loading import Batch
from geofm_model.models import MaskedAutoencoder, compile_blocks
from geofm_model.training.averages import Average
from geofm_model.training.distributed import Ranks
from geofm_model.training.masked import MaskedTask, Preparation, errors_of
from geofm_model.training.schedules import decaying
from geofm_model.training.settings import Pretraining
from geofm_model.training.stopping import Stop


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step found; the same on all ranks."""

    step: int
    loss: float
    """Mean squared error over hidden valid pixels; nan where there were none."""
    gradient: float
    """Norm of the loss's gradient before clipping."""
    weight: float
    """Σ w·v: hidden valid numbers, weighted."""
    stop: bool
    """Some process wants to stop."""
    idle: float = 0.0
    """Seconds between the last step's end and this one's begin on a GPU: its data were not there; 0 on a CPU."""

    @property
    def empty(self) -> bool:
        """Nothing valid was hidden: nothing was learnt."""
        return self.weight == 0

    @property
    def broken(self) -> bool:
        """The gradient was not finite: nothing was learnt."""
        return not self.empty and not abs(self.gradient) < float("inf")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pending:
    """What a step found, still on its way from the device."""

    step: int
    values: Tensor
    before: torch.cuda.Event | None
    """End of the step before, where nothing else came between."""
    begun: torch.cuda.Event | None
    arrived: torch.cuda.Event | None

    def result(self) -> StepResult:
        """Wait for it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        idle = 0.0
        if self.before is not None and self.begun is not None:
            idle = float(self.before.elapsed_time(self.begun)) / 1000
        loss, gradient, weight, stop = self.values.tolist()
        return StepResult(step=self.step, loss=loss, gradient=gradient, weight=weight, stop=stop > 0, idle=idle)


class Learner:
    """A network that learns, with its optimizer and its average."""

    def __init__(
        self,
        model: MaskedAutoencoder,
        preparation: Preparation,
        run: Pretraining,
        ranks: Ranks,
        stop: Stop | None = None,
    ) -> None:
        self.model, self.ranks, self.run = model, ranks, run
        self.stop = stop or Stop()
        self.preparation = preparation
        self.device = next(model.parameters()).device
        self.average = Average(model, run.model.average) if run.model.average is not None else None
        if run.model.compile:
            compile_blocks(model)
        self.optimizer = torch.optim.AdamW(
            decaying(model, run.optimizer.decay),
            lr=run.optimizer.rate,
            betas=run.optimizer.betas,
            fused=True,
        )
        # DDP knows nothing of the device: batches are made where the weights are.
        self._network: nn.Module = (
            model if ranks.alone else DistributedDataParallel(model, gradient_as_bucket_view=True)
        )
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._settled = ranks.alone
        self._ended: torch.cuda.Event | None = None

    @property
    def task(self) -> MaskedTask:
        return self.preparation.task

    def best(self) -> MaskedAutoencoder:
        """The average of the weights where there is one, else the weights."""
        return self.model if self.average is None else self.average.model

    def autocast(self) -> AbstractContextManager[object]:
        """In which networks run, by the run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.precision == "bf16")

    def step(
        self, step: int, parts: Iterable[Batch], rate: float, *, count: int | None = None, stop: bool = False
    ) -> Pending:
        """Learn from this rank's parts of a global batch, once per repeat.

        Parameters
        ----------
        step : its number, from 0
        parts : read one by one
        count : how many there are, where `parts` has no length
        rate : of learning
        stop : this process wants to stop; all of them learn of it in the result
        """
        count = len(parts) if isinstance(parts, Sized) else count
        assert count is not None
        before, begun = self._ended, _event(self.device)
        sums = torch.zeros(3, device=self.device)
        if stop:
            sums[2] = 1.0
        for at, part in enumerate(parts, start=1):
            self._settle(part)
            for repeat in range(self.run.repeats):
                with self._sync(last=at == count and repeat == self.run.repeats - 1):
                    sums[:2] += self._add(part, repeat)
        self.ranks.sum(sums)
        gradient, useless = self._update(sums[1], rate)
        if self.average is not None:
            self.average.update(step, useless)
        found = _to_host(torch.stack([sums[0] / sums[1], gradient, sums[1], sums[2]]))
        self._ended = _event(self.device)
        return Pending(step=step, values=found, before=before, begun=begun, arrived=self._ended)

    def finite(self) -> bool:
        """Whether all weights are numbers; waits for the device."""
        return all(bool(torch.isfinite(weight).all()) for weight in self._weights)

    def paused(self) -> None:
        """Something else than steps was done: the time until the next one is nobody's waiting for data."""
        self._ended = None

    def stopping(self) -> bool:
        """Whether some process wants to stop; asked by all at the same place."""
        return self.ranks.any(self.stop.wanted, self.device)

    def state_dict(self) -> dict[str, object]:
        """Weights, their average and the optimizer's moments."""
        state: dict[str, object] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state if self.average is None else {**state, "average": self.average.model.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a state of the same network."""
        self.model.load_state_dict(cast(dict[str, Tensor], state["model"]))
        self.optimizer.load_state_dict(cast(dict[str, object], state["optimizer"]))
        if self.average is not None:
            self.average.model.load_state_dict(cast(dict[str, Tensor], state["average"]))

    def _add(self, part: Batch, repeat: int) -> Tensor:
        """Add the gradient of a part's Σ w·v·e²; returns it and Σ w·v, [2]."""
        prepared = self.preparation(part, repeat=repeat)
        weights = part.weight if self.run.data.weighting == "loss" else None
        with self.autocast():
            errors = errors_of(self._network, prepared, self.task, weights).sum()
        errors.total.backward()  # type: ignore[no-untyped-call]
        return torch.stack([errors.total.detach(), errors.weight])

    def _settle(self, part: Batch) -> None:
        """Let DDP put its buckets in order once, before the first step of this process.

        It does so after the first backward, and sums the next gradients in another order: a run that goes on would
        differ in its last digits from one that was not stopped.
        """
        if not self._settled:
            self._add(part, 0)
            self.optimizer.zero_grad()
            self._settled = True

    def _sync(self, *, last: bool) -> AbstractContextManager[object]:
        """Ranks exchange gradients once per step."""
        network = self._network
        return nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()

    def _update(self, weight: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Divide the gradients by the global denominator and take a step.

        Returns the norm of the loss's gradient, and whether the step was useless and changed nothing.

        AdamW's fused kernel divides by `grad_scale` and does nothing where `found_inf` is 1, as torch.amp.GradScaler
        uses it: no pass over the gradients of our own, and no waiting for the device.
        """
        # DDP has divided the sum of the ranks' gradients by their number.
        divisor = weight / self.ranks.world_size
        gradients = [grad for parameter in self._weights if (grad := parameter.grad) is not None]
        norm = torch.nn.utils.get_total_norm(gradients) / divisor
        useless = (weight == 0) | ~torch.isfinite(norm)
        if self.run.optimizer.clip is not None:
            divisor = divisor * (norm / self.run.optimizer.clip).clamp(min=1)
        one = torch.ones_like(divisor)
        self.optimizer.grad_scale = torch.where(useless, one, divisor)  # type: ignore[attr-defined]
        self.optimizer.found_inf = useless.float()  # type: ignore[attr-defined]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm, useless


def _event(device: torch.device) -> torch.cuda.Event | None:
    """A mark in what a GPU is to do, with its time."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _to_host(values: Tensor) -> Tensor:
    """Start copying what a step found."""
    if values.device.type != "cuda":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
