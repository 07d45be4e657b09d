"""A killed import: the same command ends in the bytes of one that was never disturbed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geofm_pipeline.cli import run

from .conftest import tree, words

_KILLED = """
import os, signal, sys
from geofm_pipeline.cli import run
import {module} as module

calls, place = [], module.{name}

def {name}(*arguments, **named):
    calls.append(0)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return place(*arguments, **named)

module.{name} = {name}
sys.exit(run(sys.argv[1:]))
"""
MANY = ("--chip-size", "8", "--timesteps", "1", "--group-shards", "1")
"""405 chips in seven write groups."""


@pytest.fixture(scope="module")
def undisturbed(places: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(words(places, out, *MANY)) == 0
    assert len(list((out / "work" / "parts").glob("group-*"))) == 7
    return tree(out / "store.zarr")


@pytest.mark.parametrize(
    ("module", "name", "call", "kept"),
    [
        ("geofm_pipeline.importing.job", "commit_table", 2, 0),  # images are committed, the plan is not
        ("geofm_pipeline.store.writer", "write_part", 3, 2),
        ("geofm_pipeline.importing.job", "commit_table", 3, 7),  # the store is sealed, samples.parquet is not there
    ],
)
def test_killed_anywhere(
    places: Path, tmp_path: Path, undisturbed: dict[str, bytes], module: str, name: str, call: int, kept: int
) -> None:
    """kill -9 in the plan, between write groups, or after the seal: what is committed is kept, the rest is done."""
    out = tmp_path / "out"
    program = _KILLED.format(module=module, name=name, call=call)
    done = subprocess.run([sys.executable, "-c", program, *words(places, out, *MANY)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(list((out / "work" / "parts").glob("group-*"))) == kept
    assert run(words(places, out, *MANY)) == 0
    assert tree(out / "store.zarr") == undisturbed
    assert run(["verify", str(out)]) == 0


@pytest.mark.heavy
def test_worker_processes_write_the_same(places: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """A local cluster of two ends in the same bytes."""
    assert run(words(places, tmp_path / "out", *MANY, "--workers", "2")) == 0
    assert tree(tmp_path / "out" / "store.zarr") == undisturbed
