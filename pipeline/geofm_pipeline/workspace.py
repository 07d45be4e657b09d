"""The dataset folder of one run: where each table lives, how it is committed, and who may write.

A commit is one file written under a temporary name, synced, renamed, and its sha256 noted in `commits.json`;
after that the file never changes. A second run finds the commits of the first and continues behind the last one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.store.files import disk_errors, replacing, write_file

SCHEMA_VERSION = 2
"""Version of the dataset folder; a newer one is refused."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Paths of one wave of a dataset folder (docs/store.md).

    A *wave* is one extension: its own plan, response and store. A *part* is the ground and years that entered the
    frame together: its own search and frame. Numbers above 1 stand in the names.
    """

    root: Path
    wave: int = 1
    part: int = 1

    @property
    def scenes(self) -> Path:
        """The search result of the part, frozen (GeoParquet)."""
        return self.root / _numbered("scenes.parquet", self.part)

    @property
    def frame(self) -> Path:
        """Folder of the part's frame: one Parquet file per tile, strata.json and blocks.parquet."""
        return self.root / _numbered("frame", self.part)

    @property
    def blocks(self) -> Path:
        """The split blocks of the frame."""
        return self.frame / "blocks.parquet"

    def frame_parts(self) -> list[Path]:
        """The frame's files in order of tile, hence of unit."""
        return sorted(self.frame.glob("[0-9]*.parquet"))

    @property
    def plan(self) -> Path:
        return self.root / _numbered("plan.parquet", self.wave)

    @property
    def screening(self) -> Path:
        """Folder of what screening measured, one Parquet file per tile; all waves share it."""
        return self.root / "screening"

    @property
    def information(self) -> Path:
        """Folder of what overviews said, one Parquet file per tile; all waves share it."""
        return self.root / "information"

    @property
    def response(self) -> Path:
        return self.root / _numbered("response.parquet", self.wave)

    @property
    def store(self) -> Path:
        return self.root / _numbered("store.zarr", self.wave)

    @property
    def samples(self) -> Path:
        """Samples of all waves."""
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
    def parts(self) -> Path:
        """Manifest parts of the wave's store."""
        return self.work / _numbered("parts", self.wave)

    @property
    def commits(self) -> Path:
        """File name → sha256 of what is final, with the waves and their designs."""
        return self.root / "commits.json"


def _numbered(name: str, number: int) -> str:
    """`plan.parquet` for 1, `plan-0002.parquet` for 2."""
    stem, dot, suffix = name.partition(".")
    return name if number == 1 else f"{stem}-{number:04d}{dot}{suffix}"


def existing_workspace(root: Path) -> Workspace:
    """The newest wave of the dataset folder at `root`; raises OutputConflictError when there is none."""
    return existing_waves(root)[-1]


def existing_waves(root: Path) -> list[Workspace]:
    """The waves of the dataset folder at `root`, in order; raises OutputConflictError when there is none.

    An extension that stopped before its plan has decided nothing and does not count.
    """
    space = Workspace(root=root)
    if not space.commits.exists():
        raise OutputConflictError(f"{root} is no dataset folder: it has no {space.commits.name}")
    spaces = [wave.space(root) for wave in read_waves(space)]
    return [wave for wave in spaces if wave.wave == 1 or is_planned(wave)]


@dataclass(frozen=True, kw_only=True)
class WaveRecord:
    """What commits.json says of one wave."""

    wave: int
    part: int
    """Number of the wave that brought the part of the frame it draws from."""
    asked: int
    """Samples asked for in this wave; 0 until its plan knows."""
    design: Mapping[str, object]
    """The options that decide what is in the store."""
    digest: str
    """sha256 of the design."""

    def space(self, root: Path) -> Workspace:
        """The wave's paths."""
        return Workspace(root=root, wave=self.wave, part=self.part)


def read_waves(space: Workspace) -> list[WaveRecord]:
    """The waves of a folder, at least one."""
    found = read_commits(space)["waves"]
    assert isinstance(found, list)
    return [WaveRecord(**record) for record in found]


def write_waves(space: Workspace, waves: Sequence[WaveRecord], *, forget: Sequence[Path] = ()) -> None:
    """Replace the list of waves; what is committed stays, but for the files to forget."""
    known = read_commits(space)["files"] if space.commits.exists() else {}
    assert isinstance(known, dict)
    lost = {path.name for path in forget}
    files = {name: digest for name, digest in known.items() if name not in lost}
    _write_commits(space, {"schema": SCHEMA_VERSION, "waves": [asdict(wave) for wave in waves], "files": files})


def read_commits(space: Workspace) -> dict[str, object]:
    """The folder's commits.json; raises OutputConflictError when it is damaged or of a newer schema."""
    try:
        found: dict[str, object] = json.loads(space.commits.read_text())
        schema = int(str(found["schema"]))
        if not isinstance(found["files"], dict) or not isinstance(found["waves"], list) or not found["waves"]:
            raise ValueError("it has no files or no waves")
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
    assert isinstance(files, dict)
    digest = files.get(path.name)
    if digest is None:
        return None
    found = file_digest(path) if path.exists() else None
    if found not in (digest, files.get(path.name + _NEXT, digest)):
        raise OutputConflictError(
            f"{path} is not what was committed (sha256 {digest[:12]}…): it was changed or removed by hand; "
            "restore it or start with another --out"
        )
    return found


_NEXT = ".next"
"""Suffix in commits.json of what a table is about to become: either digest is right until the change is complete."""


def commit_table(space: Workspace, path: Path, table: pa.Table) -> str:
    """Write a table as Parquet, make it final, and return its sha256.

    A table that is committed already is replaced in a way that any stop leaves the old or the new one committed.
    """
    fresh = path.with_name(path.name + _NEXT)
    write_parquet(fresh, table)
    digest = file_digest(fresh)
    found = read_commits(space)
    files = found["files"]
    assert isinstance(files, dict)
    if path.name in files:
        _write_commits(space, {**found, "files": {**files, path.name + _NEXT: digest}})
    with disk_errors(path):
        fresh.replace(path)
    settled = {name: value for name, value in files.items() if name != path.name + _NEXT}
    _write_commits(space, {**found, "files": {**settled, path.name: digest}})
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
    parts = [part for part in (*space.frame_parts(), space.blocks, space.frame / "strata.json") if part.exists()]
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


def is_planned(space: Workspace) -> bool:
    """Whether a plan was committed; before that nothing is lost by starting over with other options."""
    return _is_listed(space, space.plan)


def is_settled(space: Workspace) -> bool:
    """Whether the response was committed: who is in is decided."""
    return _is_listed(space, space.response)


def _is_listed(space: Workspace, path: Path) -> bool:
    files = read_commits(space)["files"]
    return isinstance(files, dict) and path.name in files


def _write_commits(space: Workspace, value: Mapping[str, object]) -> None:
    write_text(space.commits, json.dumps(value, indent=1, default=str) + "\n")
