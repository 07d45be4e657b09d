"""What can only be seen on a GPU to be right; each check says `ok` and what it found. See pretrain_gpu.py.

    python tests/benchmarks/pretrain_gpu_checks.py STORE FOLDER DEVICE

is the part of `resume` that needs a process of its own, since torch decides at its start how cuBLAS computes.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "model")]

import torch  # noqa: E402
from pretrain_gpu_contenders import RATE, SIZES, Case, Ours  # noqa: E402
from torch import Tensor  # noqa: E402

from geofm_model.loading import Batch  # noqa: E402
from geofm_model.models import MaskedAutoencoder, compile_blocks  # noqa: E402
from geofm_model.training.learner import Learner, StepResult  # noqa: E402
from geofm_model.training.masked import Prepared, errors_of  # noqa: E402

Figures = dict[str, object]
BATCHES = {"cuda": 320, "cpu": 24}
"""How many a loader is asked for."""
BURST = 16
"""Batches that are queued before the first of them is looked at."""


def loader(case: Case) -> Figures:
    """Batches on the device are those on the host bit by bit, while copies are late, and memory is used again.

    A stream of large copies keeps the device's copy engine busy and matrix products its queue, so that slabs would be
    filled again too early, or device memory given away, if anybody could.
    """
    here = iter(case.loader(batch=16, device="cpu", prefetch=1, seed=1))
    there = iter(case.loader(batch=16, prefetch=1, seed=1))
    wrong, seen, total = 0, 0, BATCHES[case.device.type]
    with _busy(case.device) as keep_busy:
        while seen < total:
            late: list[tuple[Batch, dict[str, Tensor]]] = []
            for _ in range(BURST):
                keep_busy()
                batch = next(there)
                late.append((next(here), {name: _tensor(batch, name).clone() for name in _TENSORS}))
                del batch
            for mine, found in late:
                wrong += not all(torch.equal(_tensor(mine, name), tensor.cpu()) for name, tensor in found.items())
            seen += BURST
    return {"ok": wrong == 0, "batches": seen, "wrong": wrong}


_TENSORS = [part.name for part in fields(Batch) if part.name != "rule"]


def _tensor(batch: Batch, name: str) -> Tensor:
    found: Tensor = getattr(batch, name)
    return found


@contextmanager
def _busy(device: torch.device) -> Iterator[Callable[[], None]]:
    """Gives a function that queues some 10 ms of copies to a GPU, and as much arithmetic."""
    if device.type != "cuda":
        yield lambda: None
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    host = torch.ones(1 << 27, dtype=torch.int16, pin_memory=True)
    there, square = torch.empty_like(host, device=device), torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)

    def work() -> None:
        with torch.cuda.stream(side):
            there.copy_(host, non_blocking=True)
        for _ in range(40):
            torch.matmul(square, square)

    yield work
    torch.cuda.synchronize(device)


def preparation(case: Case) -> Figures:
    """Views, masks and validity are those of the host bit by bit; normalised pixels differ by rounding at most."""
    stream = case.loader(batch=16, device="cpu")
    here, there = (case.preparation(stream, device) for device in (torch.device("cpu"), case.device))
    same, difference, batches = True, 0.0, iter(stream)
    for repeat in range(4):
        batch = next(batches)
        mine, found = here(batch, repeat=repeat), there(batch.to(case.device), repeat=repeat)
        pairs = [(mine.plan.seen, found.plan.seen), (mine.plan.hidden, found.plan.hidden), (mine.valid, found.valid)]
        same &= all(torch.equal(a, b.cpu()) for a, b in pairs + list(_known(mine, found)))
        off = (mine.vectors - found.vectors.cpu()).abs() / (1 + mine.vectors.abs())
        difference = max(difference, float(off.max()))
    return {"ok": same and difference <= 1e-6, "largest_difference": difference}


def _known(a: Prepared, b: Prepared) -> Iterator[tuple[Tensor, Tensor]]:
    assert a.metadata is not None
    assert b.metadata is not None
    for part in fields(a.metadata):
        yield getattr(a.metadata, part.name), getattr(b.metadata, part.name)


def steps(case: Case) -> Figures:
    """Losses and gradients of three float32 steps are the host's within rounding."""
    found: list[list[StepResult]] = []
    network = replace(_small(case), device=torch.device("cpu")).network()
    for device in (torch.device("cpu"), case.device):
        own = replace(_small(case), device=device, precision="float32")
        stream = own.loader(device="cpu")
        learner = own.learner(copy.deepcopy(network).to(device), own.preparation(stream))
        batches = iter(stream)
        found.append([learner.step(at, [next(batches).to(device)], 1e-4).result() for at in range(3)])
    worst = max(
        abs(a / b - 1)
        for mine, other in zip(*found, strict=True)
        for a, b in ((mine.loss, other.loss), (mine.gradient, other.gradient))
    )
    return {"ok": worst < 1e-4, "largest_relative_difference": worst, "losses": [step.loss for step in found[1]]}


def _small(case: Case) -> Case:
    return replace(case, size=SIZES["nano"], batch=4, compiled=False)


def useless(case: Case) -> Figures:
    """A step with nothing valid, or without a finite gradient, leaves all weights and moments; the next one learns."""
    ours = Ours(_small(case))
    learner, good = ours.learner, ours.batch
    empty = replace(good, fmask=torch.full_like(good.fmask, 255))
    plain = learner.preparation
    ours.step()
    before = _all(learner)
    nothing = learner.step(1, [empty], RATE).result()
    learner.preparation = replace(plain, mean=plain.mean * float("nan"))
    broken = learner.step(2, [good], RATE).result()
    kept = _equal(before, _all(learner))
    learner.preparation = plain
    usual = learner.step(3, [good], RATE).result()
    learnt = not _equal(before, _all(learner))
    ok = nothing.empty and broken.broken and kept and not (usual.empty or usual.broken) and learnt
    return {"ok": ok, "empty": nothing.empty, "broken": broken.broken, "kept": kept, "learnt": learnt}


def _all(learner: Learner) -> list[Tensor]:
    """Copies of weights and of their first moments."""
    states = learner.optimizer.state.values()
    found = [*learner.model.parameters(), *(state["exp_avg"] for state in states)]
    return [tensor.detach().clone() for tensor in found]


def _equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def waiting(case: Case) -> Figures:
    """Nothing in a step, nor in asking for the next batch, makes the host wait for the device."""
    ours = Ours(replace(case, compiled=False))
    batches = iter(ours.loader)
    for _ in range(4):
        ours.step(next(batches))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for at in range(4, 7):
                ours.learner.step(at, [next(batches)], RATE)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    said = sorted({f"{Path(warning.filename).name}:{warning.lineno} {warning.message}"[:200] for warning in caught})
    return {"ok": not said, "waits": said}


def compiled(case: Case) -> Figures:
    """Compiled blocks are the same network: float32 within rounding, bfloat16 no further from float32 than eager ones.

    Relative errors of predictions and of the whole gradient. Seen patches that change places change what is predicted.
    """
    case = replace(case, batch=min(case.batch, 8))
    stream = case.loader()
    prepared = case.preparation(stream)(next(iter(stream)))
    eager = case.network()
    quick = copy.deepcopy(eager)
    compile_blocks(quick)
    truth = _forward_backward(eager, prepared, case, half=False)
    found = {
        "float32": _distance(truth, _forward_backward(quick, prepared, case, half=False)),
        "bf16": _distance(truth, _forward_backward(quick, prepared, case, half=True)),
        "bf16_eager": _distance(truth, _forward_backward(eager, prepared, case, half=True)),
    }
    moved = replace(prepared, vectors=_rolled(prepared))
    told = _distance(truth, _forward_backward(quick, moved, case, half=False))[0]
    close = all(a <= 1.5 * b + 1e-3 for a, b in zip(found["bf16"], found["bf16_eager"], strict=True))
    return {"ok": max(found["float32"]) < 1e-4 and close and told > 1e-3, **found, "moved": told}


def _rolled(prepared: Prepared) -> Tensor:
    """Vectors with the seen patches at each other's places."""
    at = prepared.plan.seen[..., None].expand(-1, -1, prepared.vectors.shape[2])
    return prepared.vectors.scatter(1, at, prepared.vectors.gather(1, at).roll(1, dims=1))


def _forward_backward(model: MaskedAutoencoder, prepared: Prepared, case: Case, *, half: bool) -> tuple[Tensor, Tensor]:
    """(predictions, all gradients in one row)."""
    model.zero_grad()
    with torch.autocast(case.device.type, torch.bfloat16, enabled=half):
        predicted = model(prepared.vectors, prepared.grid, prepared.plan, prepared.metadata)
        errors = errors_of(model, prepared, case.size.task).sum()
    errors.mean().backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return predicted.detach().float(), torch.cat(gradients).clone()


def _distance(truth: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> list[float]:
    """‖found − truth‖ / ‖truth‖ of predictions and gradients."""
    return [float((b - a).norm() / a.norm()) for a, b in zip(truth, found, strict=True)]


def resume(case: Case) -> Figures:
    """A run that was stopped and continued has the losses of one that was not, bit by bit where torch is deterministic.

    Where it is not, its losses are as near as those of two whole runs to each other.
    """
    with TemporaryDirectory(prefix="resume-") as folder:
        command = [sys.executable, __file__, str(case.store), folder, case.device.type]
        fixed = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        done = subprocess.run(command, env=fixed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    whole, again, parts = json.loads(done.stdout.splitlines()[-1])
    noise, found = (max(abs(a / b - 1) for a, b in zip(whole, run, strict=True)) for run in (again, parts))
    return {
        "ok": whole == parts or found <= max(1e-5, 2 * noise),
        "bit_equal": whole == parts,
        "largest_relative_difference": found,
        "of_two_whole_runs": noise,
        "losses": [whole[0], whole[-1]],
    }


def three_runs(store: Path, folder: Path, device: str) -> list[list[float]]:
    """Losses of two whole runs and of one that was stopped amid its steps; nano in bf16, 64 px."""
    from geofm_model.training.pretrain import pretrain
    from geofm_model.training.runlog import read_log
    from geofm_model.training.settings import WatchSettings
    from geofm_model.training.stopping import Stop

    class StopAfter(Stop):
        """Wants to stop when it has been asked so often; it is asked once per step."""

        left = 9

        @property
        def wanted(self) -> bool:
            self.left -= 1
            return self.left < 0

    torch.use_deterministic_algorithms(True, warn_only=True)
    case = Case(size=SIZES["nano"], batch=8, compiled=False, device=torch.device(device), store=store)
    watch = WatchSettings(log=1, checkpoint=0, validate=0, pictures=0)
    settings = replace(case.settings(), steps=20, device=device, watch=watch)
    found = []
    for name, stops in (("whole", ()), ("again", ()), ("parts", (StopAfter(),))):
        run = replace(settings, out=str(folder / name))
        for stop in stops:
            assert pretrain(run, stop=stop) == "interrupted"
        assert pretrain(run) == "finished"
        losses = {int(str(entry["step"])): float(str(entry["loss"])) for entry in read_log(run.out, "train")}
        found.append([losses[step] for step in range(1, 21)])
    return found


CHECKS: Mapping[str, Callable[[Case], Figures]] = {
    "loader": loader,
    "preparation": preparation,
    "steps": steps,
    "useless": useless,
    "resume": resume,
    "waiting": waiting,
    "compiled": compiled,
}
"""`waiting` needs a GPU, `compiled` a compiler."""


if __name__ == "__main__":
    print(json.dumps(three_runs(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
