"""What both sides of step_time.py share: steps on request, timed one by one. Needs torch alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WARM = 2
Build = Callable[[dict[str, Any]], tuple[nn.Module, Callable[[Tensor], Tensor]]]
"""Of a cell's shape: (model, loss of an image [b, t, c, h, w] or [b, c, t, h, w])."""


def peak_mb() -> float:
    """Highest resident memory of this process so far; Linux alone."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def steps(cell: dict[str, Any], build: Build, axes: tuple[int, ...]) -> Iterator[tuple[float, float]]:
    """(seconds, CPU seconds of all threads) of one step after the other, but first the number of parameters.

    `axes` order (b, t, c, h, w) as the model wants them.
    """
    torch.set_num_threads(cell["threads"])
    torch.manual_seed(0)
    model, loss_of = build(cell)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    image = torch.randn(cell["batch"], cell["dates"], 6, cell["size"], cell["size"]).permute(axes).contiguous()
    yield float(sum(parameter.numel() for parameter in model.parameters())), 0.0
    while True:
        begin, spent = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        half = cell["dtype"] == "bfloat16"
        with torch.autocast("cpu", dtype=torch.bfloat16) if half else nullcontext():
            loss = loss_of(image)
        loss.backward()
        if cell["optimizer"]:
            optimizer.step()
        yield time.perf_counter() - begin, time.process_time() - spent


def serve(build: Build, axes: tuple[int, ...]) -> None:
    """Read a cell, then numbers of steps, from stdin; answer each by a line on stdout."""
    before = peak_mb()
    run = steps(json.loads(sys.stdin.readline()), build, axes)
    parameters, _ = next(run)
    for _ in range(WARM):
        next(run)
    answer({"parameters": parameters})
    for line in sys.stdin:
        times = [next(run) for _ in range(json.loads(line)["steps"])]
        wall, spent = ([pair[at] for pair in times] for at in (0, 1))
        answer({"seconds": wall, "cpu_seconds": spent, "peak_mb": peak_mb() - before})


def answer(fields: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(fields), flush=True)
