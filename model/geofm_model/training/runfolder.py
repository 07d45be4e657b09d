"""The folder of a run: one process at a time, one configuration, and a word on how it stands.

RUN/config.yaml    the complete configuration      RUN/checkpoints/   the newest ones
    log.jsonl      a line per event                    pictures/      reconstructions
    status.json    running, interrupted, finished or failed, for whoever queues jobs
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import yaml

from geofm_model.disk import replaced
from geofm_model.training.settings import Pretraining, shown

State = Literal["running", "interrupted", "finished", "failed"]


class RunFolder:
    """Where a run keeps what it makes."""

    def __init__(self, place: str | Path) -> None:
        self.path = Path(place).expanduser()
        self.checkpoints = self.path / "checkpoints"
        self.pictures = self.path / "pictures"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other processes out.

        Raises
        ------
        ValueError
            When another process trains here, or the folder holds other things.
        """
        made = not self.path.exists()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out is {self.path}, which is a file: name a folder")
        if self._others() and not ((self.path / "config.yaml").exists() or self.checkpoints.exists()):
            raise ValueError(f"{self.path} is not empty and holds no run of geofm-train: name a new folder with --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ".lock").touch()
        except OSError as error:
            raise ValueError(
                f"out is {self.path}, where nothing can be written ({error}): name another folder"
            ) from error
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"another process trains in {self.path}: wait, or name another --out") from error
            except OSError:
                pass  # a file system without locks
            try:
                yield
            finally:
                if not self._others():  # refused before anything was written
                    (self.path / ".lock").unlink(missing_ok=True)
                    if made:
                        self.path.rmdir()

    def write_failure(self, state: State, remark: str) -> None:
        """Say that a run, if there is one, ended by an error; a disk that is full must not hide which."""
        with suppress(OSError, ValueError, KeyError):
            old = json.loads((self.path / "status.json").read_text(encoding="utf-8"))
            self.write_status(state, old["step"], old["steps"], remark)

    def _others(self) -> bool:
        """Whether the folder holds more than the lock."""
        return self.path.is_dir() and any(path.name != ".lock" for path in self.path.iterdir())

    def write_settings(self, run: Pretraining) -> None:
        """Keep the configuration, complete but for what is secret in addresses."""
        plain = json.loads(json.dumps(asdict(shown(run))))
        _replace(self.path / "config.yaml", yaml.safe_dump(plain, sort_keys=False))

    def write_status(self, state: State, step: int, steps: int, remark: str = "") -> None:
        """Say how the run stands."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        process = f"{socket.gethostname()}:{os.getpid()}"  # one that is gone says running for ever
        status = {"state": state, "step": step, "steps": steps, "time": now, "process": process, "remark": remark}
        _replace(self.path / "status.json", json.dumps(status) + "\n")


def _replace(path: Path, text: str) -> None:
    with replaced(path) as working:
        working.write_text(text, encoding="utf-8")
