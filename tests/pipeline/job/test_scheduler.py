"""A scheduler that runs elsewhere, as processes of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from geofm_pipeline.cli import run
from geofm_pipeline.simulator import Archive

from .conftest import job_words
from .test_job import dataset_bytes

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a scheduler with two workers, all separate processes started by Dask's own commands."""
    folder = tmp_path_factory.mktemp("scheduler")
    dask = shutil.which("dask", path=str(Path(sys.executable).parent))
    assert dask is not None
    with ExitStack() as stack:
        file = folder / "scheduler.json"

        def start(*words: str) -> None:
            process = subprocess.Popen([dask, *words], cwd=folder, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)

        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        for _ in range(2):
            start("worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--scheduler-file", str(file))
        from distributed import Client

        with Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address


def test_a_foreign_scheduler_gives_the_same_bytes(archive: Archive, tmp_path: Path, scheduler: str) -> None:
    """Plan, response, samples and store equal those of a run inside one process."""
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(job_words(archive, here)) == 0
    assert run(job_words(archive, there, "--workers", "", "--scheduler", scheduler)) == 0
    assert dataset_bytes(here) == dataset_bytes(there)


def test_relative_paths_reach_the_workers(
    archive: Archive, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative --out and catalogue mean the user's folder, although workers run elsewhere."""
    monkeypatch.chdir(archive.root)
    out = Path("..") / "elsewhere" / "out"
    words = job_words(archive, out, "--catalog", "items.json", "--workers", "", "--scheduler", scheduler)
    assert run(words) == 0
    assert run(["verify", str(out)]) == 0
