"""Killed in the middle: the store ends bit-identical to one that was never disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from geofm_pipeline.cli import run
from geofm_pipeline.simulator import Archive, simulate

from .conftest import job_words
from .test_job import dataset_bytes

pytestmark = pytest.mark.heavy
MANY = ("--samples", "1000", "--group-shards", "1", "--min-clear", "0.5")
"""Several write groups, so that a kill falls between them."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Sixteen blocks: 256 cells of 64 px, hundreds of chips."""
    out = tmp_path_factory.mktemp("large") / "archive"
    return simulate(out, tiles=["32TNR"], years=[2022], seed=3, extent=(0, 1280, 1024, 1024), per_year=12)


@pytest.fixture(scope="module")
def undisturbed(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store of a run inside one process."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(job_words(archive, out, *MANY)) == 0
    assert len(list((out / "work" / "parts").glob("group-*"))) >= 5
    return dataset_bytes(out)


def start(archive: Archive, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """The job in a process of its own."""
    words = job_words(archive, out, *MANY, "--workers", str(workers))
    program = "import sys; from geofm_pipeline.cli import run; sys.exit(run(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n  {program}", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        # a shell's background jobs ignore Ctrl-C, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(found: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until `found()`, at most two minutes, while the process lives."""
    deadline = time.monotonic() + 120
    while not found() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def has_part(out: Path) -> Callable[[], bool]:
    """True once a write group is committed."""
    return lambda: any((out / "work" / "parts").glob("group-*"))


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Dask's worker processes."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ends just now
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
    return found


def test_a_worker_killed_in_the_middle_of_writing(
    archive: Archive, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """kill -9 of a worker while groups are written: the same run finishes by itself, bit for bit the same."""
    out = tmp_path / "out"
    process = start(archive, out, workers=2)
    wait_for(has_part(out), process)
    victims = workers_of(process)
    assert victims, "the kill must fall into the run"
    victims[0].kill()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()
    assert dataset_bytes(out) == undisturbed
    assert run(["verify", str(out)]) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_the_whole_job_killed_and_started_again(
    archive: Archive, tmp_path: Path, undisturbed: dict[str, bytes], workers: int
) -> None:
    """kill -9 of everything while groups are written: the same command continues and ends in the same bytes."""
    out = tmp_path / "out"
    process = start(archive, out, workers=workers)
    wait_for(has_part(out), process)
    victims = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for victim in victims:
        victim.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "the kill must fall into the run"
    before = len(list((out / "work" / "parts").glob("group-*")))
    assert run(job_words(archive, out, *MANY)) == 0
    assert before >= 1
    assert dataset_bytes(out) == undisturbed


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_says_so_and_is_continued(
    archive: Archive, tmp_path: Path, undisturbed: dict[str, bytes], sent: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end with exit code 130, one sentence and no traceback; the same command continues."""
    out = tmp_path / "out"
    process = start(archive, out, workers=2)
    wait_for(has_part(out), process)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does: to the workers as well
    else:
        os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()
    assert "interrupted; what is written is kept" in errors.decode()
    assert "Traceback" not in errors.decode()
    assert run(job_words(archive, out, *MANY)) == 0
    assert dataset_bytes(out) == undisturbed


def test_ctrl_c_while_the_cluster_starts_is_heard(archive: Archive, tmp_path: Path) -> None:
    """A terminal's Ctrl-C that also reaches half-started workers: they say nothing, and the run ends."""
    process = start(archive, tmp_path / "out", workers=2)
    wait_for(lambda: bool(workers_of(process)), process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert "interrupted; what is written is kept" in errors.decode()
    assert "Traceback" not in errors.decode()
