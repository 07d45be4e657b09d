"""Does a training set drawn by our design teach more than one drawn uniformly? Many small runs, one held-out sample.

    python tests/benchmarks/sampling_training.py FOLDER [--n 256] [--steps 400] [--seeds 8] [--picture FILE]

Everything from nothing: simulated ground, a pool, sets, runs of `geofm-train pretrain` one after the other on one
thread, scores, analysis. What is in FOLDER (4 GB in the end) is kept: the same command goes on, and after 50 minutes of
one core it is done. The protocol, fixed before the first run of our design, and what was found:
docs/evidence/training.md. The picture needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from loader_memory import tree_cpu
from sampling_training_analysis import Trial, analyse
from sampling_training_data import Arm, Pool, draw_set, make_pool, write_set
from sampling_training_scores import Yardstick, score

from geofm_model.commands import pretrain

ARMS = ("uniform-1", "ours-0.5", "uniform-0.25", "ours-1", "equal-0.5", "entropy-0.5")
RECIPE = {
    "data.threads": 1,
    "watch.validate": 0,
    "watch.pictures": 0,
    "watch.keep": 1,
    "watch.log": 50,
    "device": "cpu",
}
"""Beside mae_nano.yaml."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs have in common."""

    n: int
    """Samples of a whole training set."""
    steps: int
    batch: int
    rate: float
    """Of learning, per 256 views."""

    @property
    def name(self) -> str:
        return "-".join(f"{key}{value:g}" for key, value in asdict(self).items())


def train(store: Path, run: Path, setting: Setting, seed: int) -> None:
    """A run of `geofm-train pretrain`, or the rest of it, in this process."""
    options = {**RECIPE, "data.batch_size": setting.batch, "optimizer.rate": setting.rate, "steps": setting.steps}
    options |= {"data.store": store, "seed": seed, "out": run}
    with (run.parent / f"{run.name}.log").open("a") as log, redirect_stderr(log):
        code, _ = pretrain(["--config=mae_nano.yaml", *(f"--{k}={v}" for k, v in options.items())], {})
    if code:
        raise SystemExit(code)


def one(folder: Path, pool: Pool, yardstick: Yardstick, arm: Arm, setting: Setting, seed: int) -> Trial:
    """Draw, write, train and score; from the folder what is there."""
    name = f"{setting.name}-{arm.name}-seed{seed}"
    kept, run = folder / "scores" / f"{name}.npz", folder / "runs" / name
    if not kept.exists():
        for part in (kept, run):
            part.parent.mkdir(parents=True, exist_ok=True)
        begin, spent = time.perf_counter(), tree_cpu()
        units = draw_set(pool, arm, setting.n, seed)
        train(write_set(pool, units, folder / "sets" / name), run, setting, seed)
        found: dict[str, Any] = {"units": units, **score(run, pool, yardstick)}
        took = tree_cpu() - spent
        with (working := kept.with_suffix(".part")).open("wb") as handle:
            np.savez(handle, cpu_seconds=took, **found)
        working.rename(kept)
        print(f"{name}: {took:.0f} s CPU, {time.perf_counter() - begin:.0f} s", flush=True)
    with np.load(kept) as arrays:
        return Trial(arm=arm, seed=seed, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--arms", nargs="+", default=ARMS, help="design-share, e.g. ours-0.5")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    arms = [Arm(design=name.split("-")[0], share=float(name.split("-")[1])) for name in options.arms]
    setting = Setting(n=options.n, steps=options.steps, batch=options.batch, rate=options.rate)
    pool = make_pool(options.folder)
    yardstick = Yardstick.of(pool)
    trials = [
        one(options.folder, pool, yardstick, arm, setting, seed)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for arm in arms
    ]
    found = analyse(pool, trials)
    print("\n".join(found.lines))
    (options.folder / f"results-{setting.name}.json").write_text(json.dumps(found.facts, indent=1) + "\n")
    if options.picture:
        from sampling_training_picture import draw_picture

        draw_picture(options.picture, found)


if __name__ == "__main__":
    main()
