"""The dataset folder of one run: where each table lives, how it is committed, and who may write.

A commit is one file written under a temporary name, synced, renamed, and its sha256 noted in `commits.json`;
after that the file never changes. A second run finds the commits of the first and continues behind the last one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.store.files import disk_errors, replacing, write_file

SCHEMA_VERSION = 1
"""Version of the dataset folder; a newer one is refused."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Paths of one dataset folder (docs/store.md)."""

    root: Path

    @property
    def scenes(self) -> Path:
        """The search result, frozen (GeoParquet)."""
        return self.root / "scenes.parquet"

    @property
    def frame(self) -> Path:
        """Folder of the frame, one Parquet file per tile, and strata.json."""
        return self.root / "frame"

    @property
    def plan(self) -> Path:
        return self.root / "plan.parquet"

    @property
    def screening(self) -> Path:
        """Folder of what screening measured, one Parquet file per tile."""
        return self.root / "screening"

    @property
    def response(self) -> Path:
        return self.root / "response.parquet"

    @property
    def store(self) -> Path:
        return self.root / "store.zarr"

    @property
    def samples(self) -> Path:
        return self.root / "samples.parquet"

    @property
    def card(self) -> Path:
        return self.root / "card.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def log(self) -> Path:
        """One JSON line per event of every run in this folder."""
        return self.root / "run.jsonl"

    @property
    def work(self) -> Path:
        """Locks, manifest parts and scratch; never inside the store."""
        return self.root / "work"

    @property
    def commits(self) -> Path:
        """File name → sha256 of what is final, with the design's digest."""
        return self.root / "commits.json"


def open_workspace(root: Path, *, design: Mapping[str, object], digest: str) -> Workspace:
    """Create or continue a dataset folder.

    Raises
    ------
    OutputConflictError
        When the folder holds another design (with the options that differ), a newer schema or foreign files.
    """
    space = Workspace(root=root)
    if space.commits.exists() and _is_planned(space):
        _check_same_design(space, design, digest)
        return space
    if not space.commits.exists() and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputConflictError(
            f"--out {root} exists and holds no dataset of geofm-sample; name a new or empty folder"
        )
    with disk_errors(root):
        space.work.mkdir(parents=True, exist_ok=True)
        space.card.unlink(missing_ok=True)
        _write_commits(space, {"schema": SCHEMA_VERSION, "design_digest": digest, "design": design, "files": {}})
    return space


def existing_workspace(root: Path) -> Workspace:
    """The dataset folder at `root`; raises OutputConflictError when there is none."""
    space = Workspace(root=root)
    if not space.commits.exists():
        raise OutputConflictError(f"{root} is no dataset folder: it has no {space.commits.name}")
    read_commits(space)
    return space


def read_commits(space: Workspace) -> dict[str, object]:
    """The folder's commits.json; raises OutputConflictError when it is damaged or of a newer schema."""
    try:
        found: dict[str, object] = json.loads(space.commits.read_text())
        schema = int(str(found["schema"]))
        if not isinstance(found["files"], dict):
            raise ValueError("files is no table")
    except (ValueError, KeyError, TypeError) as error:
        raise OutputConflictError(
            f"{space.commits} is damaged ({error}): restore it from a copy, or use another --out"
        ) from error
    if schema > SCHEMA_VERSION:
        raise OutputConflictError(
            f"{space.root} has schema {schema}, this program knows up to {SCHEMA_VERSION}: update geofm"
        )
    return found


def committed(space: Workspace, path: Path) -> str | None:
    """sha256 of a committed file or None; a committed file that changed or vanished is refused."""
    files = read_commits(space)["files"]
    digest = files.get(path.name) if isinstance(files, dict) else None
    if digest is None:
        return None
    if not path.exists() or file_digest(path) != digest:
        raise OutputConflictError(
            f"{path} is not what was committed (sha256 {digest[:12]}…): it was changed or removed by hand; "
            "restore it or start with another --out"
        )
    return str(digest)


def commit_table(space: Workspace, path: Path, table: pa.Table) -> str:
    """Write a table as Parquet, make it final, and return its sha256."""
    write_parquet(path, table)
    digest = file_digest(path)
    found = read_commits(space)
    files = found["files"]
    assert isinstance(files, dict)
    _write_commits(space, {**found, "files": {**files, path.name: digest}})
    return digest


_FRAME_KEY = b"geofm_frame"


def named_frame(space: Workspace, plan: pa.Table) -> pa.Table:
    """The plan with the digest of the frame it was drawn from in its metadata."""
    return plan.replace_schema_metadata({**(plan.schema.metadata or {}), _FRAME_KEY: _frame_digest(space).encode()})


def check_frame(space: Workspace) -> None:
    """Raise OutputConflictError when the frame is not the one that the committed plan was drawn from."""
    metadata: dict[bytes, bytes] = pq.read_schema(space.plan).metadata or {}
    if metadata.get(_FRAME_KEY, b"").decode() != _frame_digest(space):
        raise OutputConflictError(
            f"{space.frame} is not the frame that {space.plan.name} was drawn from: a file was changed, added or "
            "removed; restore it or start with another --out"
        )


def _frame_digest(space: Workspace) -> str:
    parts = [part for part in (*sorted(space.frame.glob("*.parquet")), space.frame / "strata.json") if part.exists()]
    lines = "\n".join(f"{part.name} {file_digest(part)}" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table under a temporary name and rename it."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, path.parent) as fd, os.fdopen(fd, "wb", closefd=False) as stream:
        pq.write_table(table, stream, compression="zstd", row_group_size=1 << 17)


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it."""
    write_file(path, text.encode(), path.parent)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_planned(space: Workspace) -> bool:
    """Whether a plan was committed; before that nothing is lost by starting over with other options."""
    files = read_commits(space)["files"]
    return isinstance(files, dict) and space.plan.name in files


def _check_same_design(space: Workspace, design: Mapping[str, object], digest: str) -> None:
    found = read_commits(space)
    if found["design_digest"] == digest:
        return
    old = found["design"] if isinstance(found["design"], dict) else {}
    differ = [
        f"{name}: {old.get(name)!r} there, {value!r} now" for name, value in design.items() if old.get(name) != value
    ]
    raise OutputConflictError(
        f"--out {space.root} holds another plan ({'; '.join(differ) or 'different digests'}); "
        "repeat its options to continue it, or name another --out"
    )


def _write_commits(space: Workspace, value: Mapping[str, object]) -> None:
    write_text(space.commits, json.dumps(value, indent=1, default=str) + "\n")
