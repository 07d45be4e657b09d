"""A checkpoint is whole or not there, is read only as it was written, and runs no code."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from geofm_model.disk import digest_of
from geofm_model.training.checkpoints import (
    CheckpointError,
    latest_checkpoint,
    open_checkpoint,
    write_checkpoint,
)

STATE = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "note": "plain", "numbers": [1, 2]}


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    """Tensors, words and numbers; by the folder of the run, of its checkpoints, or the checkpoint's own."""
    written = write_checkpoint(tmp_path / "checkpoints", 7, STATE, {"samples": 70})
    for place in (tmp_path, tmp_path / "checkpoints", written.path):
        found = open_checkpoint(place)
        assert (found.step, found.record["samples"]) == (7, 70)
        state = found.state()
        assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])  # type: ignore[index]
        assert state["numbers"] == [1, 2]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    """By their steps; others go once the new one is there."""
    for step in (5, 100, 20, 300):
        write_checkpoint(tmp_path, step, STATE, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000100", "step-00000300"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 300
    assert latest_checkpoint(tmp_path / "none") is None


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    """A flipped bit, a missing file, a broken record, another schema: each is named, with what to do."""
    written = write_checkpoint(tmp_path, 1, STATE, {})
    file = written.path / "state.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"SHA-256.*move the checkpoint's folder away"):
        written.state()
    file.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        written.state()
    record = written.path / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        open_checkpoint(tmp_path)
    record.write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot be read \(Expecting property name"):
        open_checkpoint(tmp_path)
    record.write_text("{}")
    with pytest.raises(CheckpointError, match="does not say schema and step"):
        open_checkpoint(tmp_path)
    record.unlink()
    write_checkpoint(tmp_path / "run" / "checkpoints", 3, STATE, {}).path.joinpath("record.json").unlink()
    for place in (tmp_path, written.path, tmp_path / "run"):
        with pytest.raises(CheckpointError, match=r"record\.json is missing.*restore the file, or move"):
            open_checkpoint(place)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_changed_record_is_an_error(tmp_path: Path) -> None:
    """A number that is another one would shift all samples to come."""
    written = write_checkpoint(tmp_path, 1, STATE, {"samples": 20})
    record = written.path / "record.json"
    record.write_text(record.read_text().replace('"samples": 20', '"samples": 24'))
    with pytest.raises(CheckpointError, match="not as it was written"):
        open_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path) -> None:
    """The error says what to do, nothing of the new one stays, and nothing old is removed."""
    write_checkpoint(tmp_path, 1, STATE, {}, keep=1)
    script = (
        "import resource, torch; from pathlib import Path; "
        "from geofm_model.training.checkpoints import write_checkpoint; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        f"write_checkpoint(Path({str(tmp_path)!r}), 2, {{'w': torch.zeros(1_000_000)}}, {{}}, keep=1)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "CheckpointWriteError: the checkpoint of step 2 cannot be written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch /tmp/geofm-evil",))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """Even where its record's digest is right."""
    written = write_checkpoint(tmp_path, 1, STATE, {})
    file = written.path / "state.pt"
    torch.save({"model": Evil()}, file)
    record = written.path / "record.json"
    entries = {**json.loads(record.read_text()), "sha256": digest_of(file)}
    del entries["record_sha256"]
    digest = sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
    record.write_text(json.dumps({**entries, "record_sha256": digest}))
    with pytest.raises(pickle.UnpicklingError):
        open_checkpoint(tmp_path).state()


WRITER = """
import sys, torch
from pathlib import Path
from geofm_model.training.checkpoints import write_checkpoint
state = {"weights": torch.zeros(4_000_000)}
step = 0
while True:
    step += 1
    write_checkpoint(Path(sys.argv[1]), step, state, {"n": step}, keep=2)
    print(step, flush=True)
"""


def test_a_killed_writer_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    """Killed at moments of no choice, again and again, what has a checkpoint's name can be read."""
    for attempt in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.02 + 0.013 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for path in tmp_path.glob("step-*"):
            found = open_checkpoint(path)
            assert found.record["n"] == found.step
            assert found.state().keys() == {"weights"}
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
