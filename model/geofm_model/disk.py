"""Files that are whole or not there, and what they hold: written aside, flushed, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def to_disk(path: Path) -> None:
    """Have the disk hold what was written to a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write into, which takes the place of `path` when the block ends well, and is removed when not."""
    working = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield working
        working.replace(path)
    finally:
        working.unlink(missing_ok=True)
