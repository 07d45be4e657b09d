"""Kills a writer at chosen system calls and resumes it; prints one JSON line per kill point.

Run as a script with `OUT POINTS`, where POINTS is a number of kill points spread over the whole run. Each attempt is
a forked child that counts its writes, syncs, renames and removals and sends itself SIGKILL at the chosen one; then
another child, unharmed, resumes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.store import StoreSpec, verify
from geofm_pipeline.store.synthetic import SyntheticReader, synthetic_requests, write_synthetic_store

CALLS = ("write", "fsync", "rename", "unlink")
SPEC = StoreSpec(n=21, timesteps=1, height=16, width=16, seed=1, shard_size=4, group_shards=2)


def main(out: Path, points: int) -> None:
    reference = _run(out / "reference", kill_at=0)
    assert reference["status"] == 0, "the reference run must finish"
    for k in range(points):
        target = out / f"kill-{k}"
        kill_at = 1 + k * (reference["calls"] - 1) // max(1, points - 1)
        killed = _run(target, kill_at=kill_at)
        again = _run(target, kill_at=kill_at) if k % 2 else killed  # every other point is hit twice
        resumed = _run(target, kill_at=0)
        line = json.dumps(
            {
                "kill_at": kill_at,
                "killed": killed["status"] == signal.SIGKILL,
                "killed_again": again["status"] in (0, signal.SIGKILL),
                "resumed": resumed["status"] == 0,
                "equal": _digest(target / "store.zarr") == _digest(out / "reference" / "store.zarr"),
                "verified": verify(target / "store.zarr").ok,
            }
        )
        sys.stdout.write(line + "\n")


def _run(out: Path, *, kill_at: int) -> dict[str, int]:
    out.mkdir(exist_ok=True)
    count_file = out / "calls"
    child = os.fork()
    if child == 0:
        _child(out, count_file, kill_at)
    _, status = os.waitpid(child, 0)
    calls = int(count_file.read_text()) if count_file.exists() else 0
    count_file.unlink(missing_ok=True)
    return {"status": status, "calls": calls}


def _child(out: Path, count_file: Path, kill_at: int) -> None:
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    unit = synthetic_requests(SPEC)[5].chip.unit
    fault = BlockReadError(granule="HLS.L30.X", band="B04", cause="404 Not Found")
    write_synthetic_store(out, SPEC, SyntheticReader(faults={unit: fault}))
    count_file.write_text(str(calls))
    os._exit(0)


def _digest(store: Path) -> str:
    digest = sha256()
    for file in sorted(store.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(store).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
