"""The record of a run: a JSON line per event in log.jsonl, and for TensorBoard where asked for.

A run that was killed goes on from its last checkpoint and repeats the steps after it; its log is only ever appended
to, and :func:`read_log` leaves out what was repeated.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


class Scalars(Protocol):
    """What TensorBoard's SummaryWriter does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def close(self) -> None: ...


class RunLog:
    """Appends events to RUN/log.jsonl.

    Parameters
    ----------
    folder : of the run
    tensorboard : write numbers to RUN/tensorboard, too
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self._scalars = _tensorboard(folder / "tensorboard") if tensorboard else None
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "log.jsonl").open("a+", encoding="utf-8")
        if _ends_within_a_line(folder / "log.jsonl"):
            self._file.write("\n")

    def write(self, event: str, step: int, values: Mapping[str, object]) -> None:
        """Note what happened at a step; numbers that are not finite become null, as JSON has none."""
        line = {"event": event, "step": step, "time": datetime.now(UTC).isoformat(timespec="seconds"), **values}
        self._file.write(json.dumps(_plain(line)) + "\n")
        self._file.flush()
        if self._scalars is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._scalars.add_scalar(f"{event}/{name}", value, step)

    def flush(self) -> None:
        """Have the disk hold what was written."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write out everything."""
        self.flush()
        self._file.close()
        if self._scalars is not None:
            self._scalars.close()


def read_log(folder: str | Path, event: str | None = None) -> list[dict[str, object]]:
    """Events of a run in order of time, without those that a resumed run repeated; of one kind, or all."""
    found: list[dict[str, object]] = []
    path = Path(folder) / "log.jsonl"
    if not path.exists():
        raise ValueError(f"{path} is missing: give the folder of a run of geofm-train")
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the process was killed within this line; what it said is said again
        if entry["event"] == "start":
            found = []
        if entry["event"] == "resume":
            found = [old for old in found if int(str(old["step"])) <= entry["step"]]
        found.append(entry)
    return [entry for entry in found if event is None or entry["event"] == event]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _tensorboard(folder: Path) -> Scalars:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"watch.tensorboard is true, but the package tensorboard is not here ({error}): pip install tensorboard, "
            "or leave it false; log.jsonl holds the same numbers"
        ) from error
    writer: Scalars = SummaryWriter(str(folder))
    return writer
