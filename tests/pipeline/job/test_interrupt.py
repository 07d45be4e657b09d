"""Ctrl-C ends a run at once, also while it waits for a server that says nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from servers.loopback import Reply, Request, ranged, serving

from geofm_pipeline.simulator import Archive

from .conftest import job_words

pytestmark = pytest.mark.heavy
PATIENCE_S = 15
"""Far below any of the waits that are interrupted, and far above what a busy machine needs."""


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("silent", ["catalogue", "pixels", "throttled"])
def test_a_silent_server_does_not_hold_an_interrupted_run(
    archive: Archive, tmp_path: Path, silent: str, workers: str
) -> None:
    """SIGINT while a catalogue or a file is waited for, or while a server's Retry-After runs: exit code 130, soon."""
    reached: list[str] = []

    def app(request: Request) -> Reply:
        wanted = silent == "catalogue" or request.path.endswith(".tif")
        if wanted:
            reached.append(request.path)
            if silent == "throttled":
                return Reply(status=503, headers={"Retry-After": "50"})
            return Reply(wait_s=300.0)
        return ranged(request, Reply(body=(archive.root / request.path.lstrip("/")).read_bytes()))

    with serving(app) as server:
        services = tmp_path / "services.yaml"
        services.write_text(yaml.safe_dump({"cmr": server.url}))
        catalog = "cmr" if silent == "catalogue" else f"{server.url}/items.json"
        options = ("--catalog", catalog, "--services", str(services), "--workers", workers)
        words = job_words(archive, tmp_path / "out", *options)
        command = [sys.executable, "-c", "import sys; from geofm_pipeline.cli import run; sys.exit(run(sys.argv[1:]))"]
        process = subprocess.Popen(
            [*command, *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            start_new_session=True,
            # a shell's background jobs ignore Ctrl-C, and so would what they start
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            until = time.monotonic() + 90
            while not reached and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            assert reached, process.stderr and process.stderr.read()
            time.sleep(2.0)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "interrupted" in said
    if silent == "throttled":  # whoever waits, the driving process says what for
        assert re.search(r"network: 127\.0\.0\.1:\d+: .*\b503\b.* 1 of \d+ tries made, the next one in 50 s", said), (
            said
        )
