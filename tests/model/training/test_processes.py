"""Several processes train as one does, and a run survives the loss of one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from geofm_model.training.checkpoints import open_checkpoint
from geofm_model.training.pretrain import pretrain
from geofm_model.training.runlog import read_log
from geofm_model.training.settings import Pretraining
from geofm_model.training.stopping import Stop

from .conftest import MakeRun, MakeStore

pytestmark = pytest.mark.heavy


def launched(run: Pretraining, processes: int) -> subprocess.Popen[str]:
    """`geofm-train pretrain` under torchrun, settings by a file."""
    folder = Path(run.out).parent
    settings = folder / f"{Path(run.out).name}.yaml"
    settings.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(run)))))
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
            *("-m", "geofm_model", "pretrain", "--config", str(settings)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore SIGINT, and their children after them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it said, once it has ended well."""
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def losses(run: Pretraining) -> list[float]:
    """By step."""
    return [float(str(entry["loss"])) for entry in read_log(run.out, "train")]


def rank_pids(process: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started."""
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def wait_for_step(run: Pretraining, step: int, process: subprocess.Popen[str]) -> None:
    """Until the log has it."""
    for _ in range(2000):
        if (Path(run.out) / "log.jsonl").exists() and len(losses(run)) >= step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"step {step} did not come")


def test_an_error_that_all_have_is_said_once(make_run: MakeRun) -> None:
    """Before the processes know each other, and after."""
    for changes, message in (
        ({"device": "tpu"}, "device must be auto"),
        ({"data": {"store": "/nowhere"}}, "/nowhere does"),
    ):
        process = launched(make_run(**changes), 2)
        _, said = process.communicate(timeout=120)
        assert process.returncode != 0
        assert said.count(message) == said.count("geofm-train: ") == 1


def test_two_processes_are_one(make_run: MakeRun, make_store: MakeStore, tmp_path: Path) -> None:
    """The same losses within 1e-5, with accumulation, held-out errors included: means of means would differ."""
    data = {"batch_size": 8, "accumulate": 2, "store": str(make_store(n=150))}
    changes = {"data": data, "watch": {"validate": 6, "probe": 12}, "steps": 50}
    alone, both = make_run(**changes), make_run(**changes, out=str(tmp_path / "both"))
    pretrain(alone)
    finished(launched(both, 2))
    assert losses(both) == pytest.approx(losses(alone), rel=1e-5)
    for event in ("validation", "probe"):
        one, two = (read_log(run.out, event) for run in (alone, both))
        assert len(one) == len(two) > 0
        assert one[-1]["samples"] == two[-1]["samples"] > 30  # type: ignore[operator]
        for a, b in zip(one, two, strict=True):
            for name, value in a.items():
                if isinstance(value, float):
                    assert b[name] == pytest.approx(value, rel=1e-4), (event, name)
    one, two = (open_checkpoint(run.out) for run in (alone, both))
    assert (one.record["samples"], two.record["samples"]) == (400, 400)
    first, second = (found.state()["model"] for found in (one, two))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-3, atol=1e-4)


def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(make_run: MakeRun, tmp_path: Path) -> None:
    """The others end by themselves; the same command gives the curve of a run that nobody disturbed, bit by bit."""
    changes = {"watch": {"checkpoint": 10}, "steps": 400, "data": {"batch_size": 4}}
    whole, parts = make_run(**changes), make_run(**changes, out=str(tmp_path / "parts"))
    finished(launched(whole, 2))
    process = launched(parts, 2)
    wait_for_step(parts, 15, process)
    os.kill(rank_pids(process)[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0, said
    at = open_checkpoint(parts.out).step
    assert 10 <= at < 400
    assert at % 10 == 0
    assert "going on from" in finished(launched(parts, 2))
    assert losses(parts) == losses(whole)


def test_three_processes_go_on_bit_by_bit(make_run: MakeRun, tmp_path: Path) -> None:
    """Sums of three depend on their order: it is the same in a run that was stopped."""
    changes = {"steps": 400, "data": {"batch_size": 6}, "watch": {"log": 1000, "pictures": 50, "keep": 0}}
    whole, parts = make_run(**changes), make_run(**changes, out=str(tmp_path / "parts"))
    finished(launched(whole, 3))
    process = launched(parts, 3)
    for _ in range(2000):
        if (Path(parts.out) / "pictures").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert "Connection closed by peer" not in said
    assert 50 <= open_checkpoint(parts.out).step < 400
    finished(launched(parts, 3))
    one, two = (open_checkpoint(run.out).state()["model"] for run in (whole, parts))
    assert isinstance(one, dict)
    assert isinstance(two, dict)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_goes_on_with_another_number_of_processes(make_run: MakeRun, tmp_path: Path) -> None:
    """Begun by one, continued by two: within 1e-5 of one that was never stopped, and it is said that digits differ."""
    changes = {"data": {"batch_size": 8}, "steps": 50, "watch": {"checkpoint": 20}}
    whole, parts = make_run(**changes), make_run(**changes, out=str(tmp_path / "parts"))
    pretrain(whole)
    stop = Stop()
    stop.signal = signal.SIGTERM
    pretrain(parts, stop=stop)
    assert open_checkpoint(parts.out).step < 50
    assert "world_size 1 → 2" in finished(launched(parts, 2))
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)


def test_sigterm_to_torchrun_leaves_a_checkpoint(make_run: MakeRun, tmp_path: Path) -> None:
    """At the end of the step that is under way; the status says how to go on, and the run does."""
    changes = {"steps": 2000, "data": {"batch_size": 4}}
    run = make_run(**changes)
    process = launched(run, 2)
    wait_for_step(run, 5, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    at = open_checkpoint(run.out).step
    assert 5 <= at < 2000
    status = json.loads((Path(run.out) / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", at)
    process = launched(run, 2)
    wait_for_step(run, at + 5, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    steps = [entry["step"] for entry in read_log(run.out, "train")]
    assert steps == list(range(1, len(steps) + 1))
