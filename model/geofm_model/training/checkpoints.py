"""Checkpoints that are whole or not there: a folder of state and a record with its digest, moved into place at once.

    RUN/checkpoints/step-00001000/state.pt      weights, optimizer, average: tensors and plain values
                                  record.json   step, samples consumed, settings, statistics, digests, versions

A folder is written under another name, flushed to disk and renamed, so a killed run leaves either a whole checkpoint
or none. State is read with `weights_only`, after its SHA-256 was compared: a checkpoint runs no code.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from geofm_model.disk import digest_of, to_disk

SCHEMA = 1
_NAME = re.compile(r"step-(\d{8})")


class CheckpointWriteError(RuntimeError):
    """A checkpoint cannot be written."""


class CheckpointError(ValueError):
    """A checkpoint is not whole, or does not fit; the message gives place, finding and remedy."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    step: int
    """Optimizer steps done."""
    record: Mapping[str, object]
    """What record.json says."""

    def state(self, device: torch.device | str = "cpu") -> dict[str, object]:
        """Its tensors, on a device.

        Raises
        ------
        CheckpointError
            When the file is not the one that was written.
        """
        file = self.path / "state.pt"
        try:
            found = digest_of(file)
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing: {_REMEDY}") from None
        if found != self.record.get("sha256"):
            raise CheckpointError(f"{file} has SHA-256 {found}, its record says {self.record.get('sha256')}: {_REMEDY}")
        state: dict[str, object] = torch.load(file, map_location=device, weights_only=True)
        return state


_REMEDY = (
    "the checkpoint is damaged; restore the file, or move the checkpoint's folder away: then the one before it counts, "
    "or none"
)


def write_checkpoint(
    folder: Path, step: int, state: Mapping[str, object], record: Mapping[str, object], *, keep: int = 0
) -> Checkpoint:
    """Write the checkpoint of a step into `folder`, and remove older ones but the `keep` newest (0 keeps all)."""
    path = folder / f"step-{step:08d}"
    working = folder / f".{path.name}"
    for left in folder.glob(".step-*"):  # by a process that was killed
        shutil.rmtree(left)
    try:
        working.mkdir(parents=True)
        torch.save(dict(state), working / "state.pt")
        whole = {"schema": SCHEMA, "step": step, **record, "sha256": digest_of(working / "state.pt")}
        whole["record_sha256"] = _digest_of_record(whole)
        (working / "record.json").write_text(json.dumps(whole, indent=1) + "\n")
        for name in ("state.pt", "record.json", "."):
            to_disk(working / name)
    except (OSError, RuntimeError) as error:  # torch.save's own kind for a full disk
        shutil.rmtree(working, ignore_errors=True)
        raise CheckpointWriteError(
            f"the checkpoint of step {step:,} cannot be written to {folder} ({error}): make room; earlier ones are "
            "whole, and the same command goes on from the newest"
        ) from error
    if path.exists():  # of an earlier attempt at the same step
        _remove(path)
    working.rename(path)
    to_disk(folder)
    for old in _found(folder)[:-keep] if keep else []:
        _remove(old)
    return Checkpoint(path=path, step=step, record=whole)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a run's folder of checkpoints; None where there is none."""
    found = _found(folder)
    return open_checkpoint(found[-1]) if found else None


def open_checkpoint(place: str | Path) -> Checkpoint:
    """The checkpoint at `place`: its own folder, or the newest of a run.

    Raises
    ------
    CheckpointError
        When there is none, or its record cannot be read.
    """
    path = Path(place).expanduser()
    parts = ("record.json", "state.pt")
    if not (_NAME.fullmatch(path.name) and path.is_dir()) and not any((path / name).exists() for name in parts):
        newest = _found(path / "checkpoints") or _found(path)
        if not newest:
            raise CheckpointError(
                f"{path} holds no checkpoint: give the folder of a run of geofm-train, or one of its checkpoints"
            )
        path = newest[-1]
    file = path / "record.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema, step = record["schema"], int(record["step"])
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing, without which the weights beside it are of no use: {_REMEDY}"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}): {_REMEDY}") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file} does not say schema and step of a checkpoint: {_REMEDY}") from error
    if schema != SCHEMA:
        raise CheckpointError(f"{path} has schema {schema}, this version of geofm-model reads {SCHEMA}")
    if "record_sha256" not in record:
        raise CheckpointError(f"{path} was written by an earlier version of geofm-model: read it with that one")
    if record.get("record_sha256") != _digest_of_record(record):
        raise CheckpointError(f"{file} is not as it was written: {_REMEDY}")
    return Checkpoint(path=path, step=step, record=record)


def _found(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def _digest_of_record(record: Mapping[str, object]) -> str:
    """SHA-256 of all of a record but this very entry, whatever its layout."""
    rest = {name: value for name, value in record.items() if name != "record_sha256"}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _remove(path: Path) -> None:
    """Take a checkpoint's name away first: a process that is killed leaves no half of it."""
    gone = path.with_name(f".{path.name}-old")
    path.rename(gone)
    shutil.rmtree(gone)
