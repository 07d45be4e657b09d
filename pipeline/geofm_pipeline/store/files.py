"""Files that appear whole or not at all, and one writer at a time.

A file is written under a temporary name beside the store, synced, renamed over its place, and the folder synced:
a kill or power cut leaves the old file, the new one, or none. Inside a store there is never a temporary file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from geofm_pipeline.errors import OutputConflictError, ResourceError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a user can remedy: no room, a quota, a size limit, a folder that may not be written to."""
_OPEN_FILES = 65_536
_READ = 8 << 20


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a read-only folder into a ResourceError with its remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ResourceError(
                f"cannot open {place} ({error.strerror}): raise the limit of open files (`ulimit -n`), or use fewer "
                "--workers or --group-shards; what is committed is kept"
            ) from error
        if error.errno not in _FULL:
            raise
        raise ResourceError(
            f"cannot write {place} ({error.strerror}): free space there, or name an --out on another disk; "
            "what is committed is kept, and the same command continues where it stopped"
        ) from error


def allow_open_files() -> None:
    """Raise this process's soft limit of open files: the usual 1,024 is for users of select(), which we are not.

    A write group holds two files per shard open, 32 by default, and a process may write many groups at once.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`; os.write may stop early near a full disk."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class PendingFile:
    """A file that grows under a temporary name until :meth:`place` puts it in the place of `target`.

    `temp_dir` lies on the same file system, outside the store. All methods raise ResourceError on a full disk.
    """

    def __init__(self, target: Path, temp_dir: Path) -> None:
        self._target = target
        self._temp = temp_dir / f"{target.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp"
        with disk_errors(target):
            self.fd = os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._placed = False

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end."""
        with disk_errors(self._target):
            write_all(self.fd, data)

    def sync(self) -> None:
        """Make the content durable; call before `place`."""
        with disk_errors(self._target):
            os.fsync(self.fd)

    def place(self) -> None:
        """Rename over the target; durable once the folder is synced."""
        with disk_errors(self._target):
            self._temp.rename(self._target)
        self._placed = True

    def close(self) -> None:
        """Close the file, and remove it unless it was placed."""
        os.close(self.fd)
        if not self._placed:
            self._temp.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path, temp_dir: Path) -> Iterator[int]:
    """A file descriptor whose content takes the place of `target` when the block ends without an error.

    `temp_dir` lies on the same file system, outside the store.
    """
    pending = PendingFile(target, temp_dir)
    try:
        with disk_errors(target):
            yield pending.fd
        pending.sync()
        pending.place()
    finally:
        pending.close()


def write_file(target: Path, data: bytes, temp_dir: Path) -> None:
    """Put `data` in the place of `target`, atomically and durably."""
    with replacing(target, temp_dir) as fd:
        write_all(fd, data)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames and removals in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_crc32c(path: Path) -> int:
    """CRC-32C of a file's bytes, read in pieces of 8 MiB."""
    crc = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_READ):
            crc = int(google_crc32c.extend(crc, data))
    return crc


def file_size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def writer_lock(path: Path) -> Iterator[None]:
    """Hold the right to write `path`, by the file `<path>.lock` beside it, which names host and process.

    The kernel drops the lock of a process that dies on this host; a lock left by another host cannot be judged from
    here and is an error that names it.

    Raises
    ------
    OutputConflictError
        When another writer holds it.
    """
    lock = path.with_name(path.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    fd = _take(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(fd)


def _take(lock: Path) -> int:
    host = socket.gethostname()
    while True:
        with disk_errors(lock):
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            owner = os.read(fd, 4096).decode(errors="replace").split()
            _refuse_if_held(fd, lock, owner, host)
            # The former owner may have removed the file between our open and our lock: then lock the new one.
            if _same_file(fd, lock):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{host} {os.getpid()}\n".encode(), 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _refuse_if_held(fd: int, lock: Path, owner: list[str], host: str) -> None:
    who = f"process {owner[1]} on {owner[0]}" if len(owner) == 2 else "another process"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputConflictError(
            f"{lock.with_suffix('')} is being written by {who}: two writers would overwrite each other; wait for it, "
            "stop it, or choose another --out"
        ) from None
    if len(owner) == 2 and owner[0] != host:
        raise OutputConflictError(
            f"{lock.with_suffix('')} is marked as being written by {who}, which cannot be seen from {host}: if that "
            f"process is gone, remove {lock} and run again"
        )


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
