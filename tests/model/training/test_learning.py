"""What a run learns on ground with fields, forests and seasons, and that compiling changes nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geofm_model.training.runlog import read_log

from .conftest import MakeRun
from .test_command import written

pytestmark = pytest.mark.heavy


def trained(*words: str) -> None:
    """`geofm-train pretrain`, on one thread."""
    command = [sys.executable, "-m", "geofm_model", "pretrain", *words]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def numbers(run: str, event: str, name: str) -> list[float]:
    """Of all events of a kind."""
    return [float(str(entry[name])) for entry in read_log(run, event)]


def test_the_nano_recipe_learns_the_demo(tmp_path: Path) -> None:
    """On ground it has not seen the loss falls well under that of each band's mean, interval and all."""
    data, run = tmp_path / "demo", str(tmp_path / "run")
    sample = [str(Path(sys.executable).parent / "geofm-sample"), "--region", "demo", "--years", "2022-2023"]
    options = ["--chip-size", "64", "--samples", "200", "--heldout", "0.2", "--block-km", "6", "--buffer-km", "0.5"]
    subprocess.run([*sample, *options, "--out", str(data)], check=True, capture_output=True)
    trained(
        *("--config", "mae_nano.yaml", f"--data.store={data}", f"--out={run}", "--steps=400", "--data.batch_size=16"),
        *("--optimizer.rate=8e-3", "--optimizer.clip=1", "--watch.validate=200", "--watch.pictures=0"),
    )
    skill = numbers(run, "validation", "skill")
    assert skill[-1] > 0.2
    assert numbers(run, "validation", "skill_low")[-1] > 0.05
    losses = numbers(run, "train", "loss")
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_compiled_blocks_learn_the_same(make_run: MakeRun, tmp_path: Path) -> None:
    """Twelve steps, with validation in between on batches of another shape."""
    eager, compiled = (
        make_run(out=str(tmp_path / name), model={"compile": name == "compiled"}, watch={"validate": 6})
        for name in ("eager", "compiled")
    )
    for run in (eager, compiled):
        trained("--config", written(run, tmp_path))
    assert numbers(compiled.out, "train", "loss") == pytest.approx(numbers(eager.out, "train", "loss"), rel=1e-4)
    one, two = (numbers(run.out, "validation", "loss") for run in (eager, compiled))
    assert two == pytest.approx(one, rel=1e-4)
