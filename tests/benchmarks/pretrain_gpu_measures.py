"""What pretrain_gpu.py measures: races of contenders, parts of a step, data wait, kernels, rates of device and loader.

Time of steps is what passes between marks in the device's queue, so on a GPU the host is waited for only where the
queue runs empty. Memory is the peak of what a contender has allocated, its batch included, whoever else is there.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from statistics import median
from typing import TypeAlias

import torch
from pretrain_gpu_contenders import CONTENDERS, Case, Contender, Ours
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from geofm_model.loading import Batch
from geofm_model.training.masked import Preparation, Prepared
from geofm_model.training.throughput import matmul_rate, peak_flops

Figures: TypeAlias = "dict[str, object]"
Mark: TypeAlias = "torch.cuda.Event | float"
OUT_OF_MEMORY = "out of memory"
PHASES = ("preparation", "encoder", "decoder", "loss", "decoder backward", "encoder backward", "optimizer", "rest")
"""Parts of a step of ours, in order. `loss` is both ways; the gradient's norm belongs to `encoder backward`, the
moving average of the weights to `rest`."""
_WARM, _WARMER = 2, 3
"""Steps before anything is looked at (they compile, and make the optimizer's moments), and those that are looked at
for memory and for how many steps a turn takes."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long things are measured."""

    rounds: int = 5
    """Turns of each contender, of which the order changes."""
    seconds: float = 1.0
    """Of a turn."""

    def steps(self, each: float) -> int:
        """Of a turn, where one takes `each` seconds."""
        return min(50, max(3, ceil(self.seconds / each)))


class Clock:
    """Marks in a device's queue, and the seconds between them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Mark:
        """Where the queue is now; a GPU passes it when all before it is done."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def between(self, marks: Sequence[Mark]) -> list[float]:
        """Seconds from each mark to the next; waits."""
        self.wait()
        return [_seconds(first, last) for first, last in pairwise(marks)]

    def of(self, work: Callable[[], object], times: int) -> list[float]:
        """Seconds of each of some repeats, after one that finds an empty queue and so may wait for the host."""
        marks = []
        for _ in range(times + 1):
            marks.append(self.mark())
            work()
        return self.between([*marks, self.mark()])[1:]


def _seconds(first: Mark, last: Mark) -> float:
    if isinstance(first, torch.cuda.Event):
        assert isinstance(last, torch.cuda.Event)
        return float(first.elapsed_time(last)) / 1000
    assert not isinstance(last, torch.cuda.Event)
    return last - first


@dataclass(kw_only=True, eq=False)
class Runner:
    """A contender that is warm."""

    name: str
    contender: Contender
    warm_seconds: float
    peak: int | None
    """Bytes; None on a CPU."""
    steps: int
    """Of a turn."""
    first_loss: float
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def warmed(cls, name: str, case: Case, effort: Effort) -> Runner:
        """Built and run a few steps."""
        clock, cuda, begun = Clock(case.device), case.device.type == "cuda", time.perf_counter()
        before = torch.cuda.memory_allocated(case.device) if cuda else 0
        contender = CONTENDERS[name](case)
        clock.of(contender.step, _WARM)
        first = contender.loss()
        warm = time.perf_counter() - begun
        if cuda:
            torch.cuda.reset_peak_memory_stats(case.device)
        each = median(clock.of(contender.step, _WARMER))
        peak = torch.cuda.max_memory_allocated(case.device) - before if cuda else None
        return cls(
            name=name, contender=contender, warm_seconds=warm, peak=peak, steps=effort.steps(each), first_loss=first
        )

    def figures(self, case: Case) -> Figures:
        """Of all turns."""
        ordered = sorted(self.seconds)
        loss = self.contender.loss()
        if not abs(loss) < float("inf"):
            return {"error": f"the loss became {loss}"}
        return {
            "samples_per_second": case.batch / median(ordered),
            "seconds": median(ordered),
            "quartiles": [ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]],
            "steps": len(ordered),
            "peak_gb": None if self.peak is None else self.peak / 1e9,
            "warm_seconds": self.warm_seconds,
            "loss": [self.first_loss, loss],
        }


def race(names: Sequence[str], case: Case, effort: Effort) -> Mapping[str, Figures]:
    """Figures of contenders that take turns, by name; who finds no memory beside the others runs after them."""
    if case.compiled:
        forget_programs()
    found = _together(names, case, effort)
    release(case.device)
    if found is not None:
        return {name: {**figures, "beside": [n for n in names if n != name]} for name, figures in found.items()}
    if len(names) == 1:
        return {names[0]: {"error": OUT_OF_MEMORY}}
    return {**race(names[:-1], case, effort), **race(names[-1:], case, effort)}


def _together(names: Sequence[str], case: Case, effort: Effort) -> dict[str, Figures] | None:
    """None where memory was short; what else goes wrong while one warms up is its own figure."""
    runners: list[Runner] = []
    found: dict[str, Figures] = {}
    clock = Clock(case.device)
    try:
        for name in names:
            try:
                runners.append(Runner.warmed(name, case, effort))
            except Exception as error:
                if short_of_memory(error):
                    return None
                found[name] = {"error": words(error)}
        for turn in range(effort.rounds):
            for at in range(len(runners)):
                runner = runners[(at + turn) % len(runners)]
                runner.seconds += clock.of(runner.contender.step, runner.steps)
        for runner in runners:
            found[runner.name] = runner.figures(case)
            if isinstance(runner.contender, Ours):
                found[runner.name]["phases"] = phases(runner.contender, clock, runner.steps)
    except Exception as error:
        if short_of_memory(error):
            return None
        raise
    return found


def forget_programs() -> None:
    """Compile anew from now on: torch gives up after 8 shapes of a block, which shall not pass in silence either."""
    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True


def release(device: torch.device) -> None:
    """Give a GPU's memory back that nobody holds any more."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def short_of_memory(error: BaseException) -> bool:
    """Of the device, however it is said."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "ALLOC_FAILED" in said


def words(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:400]


class Marking:
    """A preparation that says when it is done."""

    def __init__(self, preparation: Preparation, done: Callable[[], None]) -> None:
        self.task, self._preparation, self._done = preparation.task, preparation, done

    def __call__(self, batch: Batch, *, repeat: int = 0) -> Prepared:
        """See :class:`Preparation`."""
        found = self._preparation(batch, repeat=repeat)
        self._done()
        return found


def phases(ours: Ours, clock: Clock, steps: int) -> dict[str, float]:
    """Seconds of each of PHASES, medians over steps that follow each other without waiting for the device."""
    taken: list[list[Mark]] = []
    with _marked(ours, clock) as marks:
        for _ in range(steps + 1):
            marks[:] = [("", clock.mark())]
            ours.step()
            marks.append((PHASES[-1], clock.mark()))
            assert tuple(name for name, _ in marks[1:]) == PHASES, [name for name, _ in marks]
            taken.append([mark for _, mark in marks])
    seconds = [clock.between(marks) for marks in taken[1:]]
    return {name: median(times) for name, times in zip(PHASES, zip(*seconds, strict=True), strict=True)}


@contextmanager
def _marked(ours: Ours, clock: Clock) -> Iterator[list[tuple[str, Mark]]]:
    """Marks of each phase's end but the last's, by hooks that are gone afterwards."""
    marks: list[tuple[str, Mark]] = []
    learner, model = ours.learner, ours.learner.model
    preparation = learner.preparation

    def note(name: str) -> None:
        marks.append((name, clock.mark()))

    def when_known(tensor: Tensor, name: str) -> None:
        """Note when the gradient of a tensor is there."""
        tensor.register_hook(lambda _: note(name))  # type: ignore[no-untyped-call]

    def before_decoder(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        when_known(inputs[0], "decoder backward")

    def after_decoder(_: nn.Module, _inputs: object, predicted: Tensor) -> None:
        note("decoder")
        when_known(predicted, "loss")

    with ExitStack() as stack:
        learner.preparation = Marking(preparation, lambda: note("preparation"))  # type: ignore[assignment]
        stack.callback(setattr, learner, "preparation", preparation)
        for handle in (
            model.encoder.register_forward_hook(lambda *_: note("encoder")),
            model.decoder.register_forward_pre_hook(before_decoder),
            model.decoder.register_forward_hook(after_decoder),
            learner.optimizer.register_step_pre_hook(lambda *_: note("encoder backward")),
            learner.optimizer.register_step_post_hook(lambda *_: note("optimizer")),
        ):
            stack.callback(handle.remove)
        yield marks


def data_wait(case: Case, effort: Effort) -> Figures:
    """What a step loses by a loader that feeds it, over the same step on a batch that stays on the device."""
    ours, clock = Ours(case), Clock(case.device)
    clock.of(ours.step, _WARM)
    steps = effort.steps(median(clock.of(ours.step, _WARMER)))
    batches, waited = iter(ours.loader), [0.0]

    def fed() -> None:
        begun = time.perf_counter()
        batch = next(batches)
        waited[0] += time.perf_counter() - begun
        ours.step(batch)

    still, fed_times, asked = list[float](), list[float](), list[float]()
    for _ in range(effort.rounds):
        still.append(sum(clock.of(ours.step, steps)) / steps)
        clock.of(fed, ours.loader.prefetch + 2)  # what was read ahead during the other's turn
        waited[0] = 0.0
        fed_times.append(sum(clock.of(fed, 2 * steps)) / (2 * steps))
        asked.append(waited[0] / (2 * steps + 1))
    fixed, with_data = median(still), median(fed_times)
    return {
        "seconds_fixed": fixed,
        "seconds_fed": with_data,
        "data_wait": 1 - fixed / with_data,
        "asking_seconds": median(asked),
        "turns": [1 - a / b for a, b in zip(still, fed_times, strict=True)],
        "samples_per_second": case.batch / with_data,
        "threads": ours.loader.threads,
    }


def kernels(case: Case, count: int = 25) -> Figures:
    """What the device did longest in a step of ours: name, milliseconds, calls."""
    if case.compiled:
        forget_programs()
    ours, clock, cuda, steps = Ours(case), Clock(case.device), case.device.type == "cuda", 3
    clock.of(ours.step, _WARM + _WARMER)
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(steps):
            ours.step()
        clock.wait()
    time_of = "self_device_time_total" if cuda else "self_cpu_time_total"
    found = sorted(profiler.key_averages(), key=lambda event: -float(getattr(event, time_of)))
    total = sum(float(getattr(event, time_of)) for event in found)
    return {
        "busy_ms": total / steps / 1000,
        "kernels": [
            [event.key[:90], round(float(getattr(event, time_of)) / steps / 1000, 3), event.count / steps]
            for event in found[:count]
        ],
    }


def loader_rates(case: Case, effort: Effort) -> Figures:
    """Samples per second of the loader alone, to the host and to the device."""
    found: Figures = {}
    for name in dict.fromkeys(("cpu", case.device.type)):
        loader = case.loader(device=name)
        batches = iter(loader)
        for _ in range(loader.prefetch + 3):
            next(batches)
        begun, seen = time.perf_counter(), 0
        while seen < 4 or time.perf_counter() - begun < 2 * effort.seconds:
            next(batches)
            seen += 1
        Clock(case.device).wait()
        found[f"to_{name}"] = seen * case.batch / (time.perf_counter() - begun)
        found["threads"] = loader.threads
        del batches
    return found


def machine(device: torch.device, effort: Effort) -> Figures:
    """What the device can do, and on what it was found."""
    cuda, clock = device.type == "cuda", Clock(device)
    size, numbers = (8192, 1 << 29) if cuda else (256, 1 << 20)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = clock.of(lambda: torch.matmul(a, b), 3)
    times = clock.of(lambda: torch.matmul(a, b), max(3, ceil(2 * effort.seconds / median(times))))
    host = torch.empty(numbers, dtype=torch.int16, pin_memory=cuda)
    there = torch.empty_like(host, device=device)
    copies = clock.of(lambda: there.copy_(host, non_blocking=True), 5)
    peak, source = peak_flops(device, "bf16")
    return {
        "datasheet_tflops": peak / 1e12,
        "source": source,
        "matmul_tflops": product_rate(device) / 1e12,
        "matmul_sustained_tflops": 2 * size**3 / median(times[len(times) // 2 :]) / 1e12,
        "host_to_device_gb_per_second": 2 * numbers / median(copies) / 1e9,
        "memory_gb": torch.cuda.get_device_properties(device).total_memory / 1e9 if cuda else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def product_rate(device: torch.device) -> float:
    """FLOP/s of bfloat16 matrix products, the denominator that a device gives itself."""
    return matmul_rate(device, "bf16", size=8192 if device.type == "cuda" else 256)
