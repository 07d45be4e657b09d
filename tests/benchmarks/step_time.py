"""Time of a training step of our masked autoencoder beside TerraTorch's PrithviMAE, on the CPU.

    python tests/benchmarks/step_time.py [--sizes nano tiny 100M] [--rounds 5] [--processes 3] [--threads N]
        [--without-adamw] [--peer-prepared] [--json FILE]

Same shapes, parameters, images, threads, torch and optimizer. A step goes from a normalised image [b, …] through the
mask, loss and gradients (forward and backward), and with fused AdamW where so named; in float32 and under bfloat16
autocast. Both sides are fresh processes that wait for each other, several pairs per cell: after warming up each runs a
few steps in turn, who begins changes every round, figures are medians of all steps; on a busy machine the fastest steps
and CPU time tell more. Ours keeps freed memory and asks for huge pages, as geofm-train does; with --peer-prepared so
does TerraTorch's process. Memory is the peak above what stood after the imports. TerraTorch comes from a folder of
packages that is installed when it is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "model" / "terratorch"))

SIDES = ("ours", "terratorch")
PREPARED = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""What geofm-train does for its memory, as an environment."""
TARGET = 0.95


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A network and its batch."""

    width: int
    depth: int
    heads: int
    decoder: tuple[int, int, int]
    """Width, depth, heads."""
    size: int
    """Edge of an image in pixels; patches have 16."""
    dates: int
    batch: int
    steps: int
    """In a turn: seconds."""


PRITHVI = (512, 8, 16)
SHAPES = {
    "nano": Shape(width=192, depth=6, heads=3, decoder=(128, 2, 4), size=64, dates=3, batch=32, steps=6),
    "tiny": Shape(width=192, depth=12, heads=3, decoder=PRITHVI, size=224, dates=1, batch=4, steps=2),
    "100M": Shape(width=768, depth=12, heads=12, decoder=PRITHVI, size=224, dates=3, batch=1, steps=1),
    "100M-T4": Shape(width=768, depth=12, heads=12, decoder=PRITHVI, size=224, dates=4, batch=2, steps=1),
}


class Side:
    """A process that runs steps when asked."""

    def __init__(self, name: str, environment: dict[str, str], cell: dict[str, object]) -> None:
        command = [sys.executable, str(HERE / f"step_time_{name}.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.facts = self.ask(cell)

    def ask(self, request: dict[str, object]) -> dict[str, Any]:
        """One line there, one back."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def run(self, steps: int) -> None:
        """A turn."""
        found = self.ask({"steps": steps})
        self.seconds += found["seconds"]
        self.cpu_seconds += found["cpu_seconds"]
        time.sleep(0.3)  # OpenMP's threads spin for a while before they sleep

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.communicate()


def measured(shape: Shape, cell: dict[str, object], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Figures of both sides, over several pairs of fresh processes: where memory lies changes a process's pace by some
    per cent for as long as it lives.
    """
    from environment import beside, terratorch_packages

    peer = beside(terratorch_packages()) | (PREPARED if options.peer_prepared else {})
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    cpu_seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    peaks: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.processes):
        with Side("ours", dict(os.environ), cell) as ours, Side("terratorch", peer, cell) as theirs:
            assert ours.facts["parameters"] == theirs.facts["parameters"], (ours.facts, theirs.facts)
            for turn in range(options.rounds):
                for side in (ours, theirs) if turn % 2 else (theirs, ours):
                    side.run(shape.steps)
            for name, side in zip(SIDES, (ours, theirs), strict=True):
                seconds[name] += side.seconds
                cpu_seconds[name] += side.cpu_seconds
                peaks[name].append(side.ask({"steps": 0})["peak_mb"])
    return {
        name: {
            "seconds": median(seconds[name]),
            "fastest": min(seconds[name]),
            "cpu_seconds": median(cpu_seconds[name]),
            "peak_mb": max(peaks[name]),
        }
        for name in SIDES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", choices=SHAPES, default=["nano", "tiny", "100M"])
    parser.add_argument("--dtypes", nargs="*", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=3, help="pairs of fresh processes for each cell")
    parser.add_argument("--without-adamw", action="store_true", help="forward and backward alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer-prepared", action="store_true", help="TerraTorch's memory is as ours")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(
        f"{'':28} ours ms  terratorch ms  ratio (target {TARGET})  of fastest  of CPU time  peak MB of both", flush=True
    )
    for size in options.sizes:
        for dtype in options.dtypes:
            for optimizer in (False,) if options.without_adamw else (False, True):
                cell = {**asdict(SHAPES[size]), "dtype": dtype, "optimizer": optimizer, "threads": options.threads}
                found = measured(SHAPES[size], cell, options)
                rows.append({"size": size, **cell, **found})
                show(f"{size} {dtype} {'with AdamW' if optimizer else ''}", found)
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "processes": options.processes, "cells": rows}))


def show(name: str, found: dict[str, dict[str, float]]) -> None:
    """A row of the table."""
    ours, theirs = (found[side] for side in SIDES)
    ratio, fastest, cpu = (ours[key] / theirs[key] for key in ("seconds", "fastest", "cpu_seconds"))
    print(
        f"{name:28} {1000 * ours['seconds']:7.0f} {1000 * theirs['seconds']:14.0f} {ratio:6.3f} {fastest:28.3f} "
        f"{cpu:12.3f} {ours['peak_mb']:8.0f}, {theirs['peak_mb']:.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
