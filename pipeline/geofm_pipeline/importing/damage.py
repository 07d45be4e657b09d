"""What is wrong with a local file that GDAL cannot open or read: damaged, no image, not readable, or gone.

Who is at fault decides what helps. Where the disk gives every byte, the file itself is at fault, and reading it again
cannot help: InputError. Where it does not, the disk or network drive is, and the same command may succeed later:
ArchiveError. Costs one plain reading of the file, after which nothing else is read.
"""

from __future__ import annotations

import re
from pathlib import Path

from geofm_pipeline.errors import ArchiveError, GeofmError, InputError

_PIECE = 1 << 23
_HEAD = 512
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF, classic or big, of either byte order."""
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"{")
"""First bytes of what servers send in place of a file, in lower case."""
_REMEDY = "remove it, or replace it by an intact copy, and run the same command again"


def unreadable(path: str, said: str) -> GeofmError:
    """The error for a file that could not be read.

    Parameters
    ----------
    path : absolute path
    said : GDAL's words
    """
    try:
        head, size = _bytes_of(Path(path))
    except FileNotFoundError:
        return ArchiveError(f"{path} is gone since it was listed: put it back and run the same command again")
    except PermissionError:
        return InputError(f"{path} may not be read by this user: give the right to read it (chmod u+r), or remove it")
    except OSError as error:
        return ArchiveError(
            f"{path} cannot be read, its disk does not give all bytes ({error.strerror or error}); what is written is "
            "kept, the same command continues"
        )
    words = " ".join(said.split()).rstrip(".")
    if Path(path).suffix.lower() == ".vrt":
        return InputError(f"{path}, or a file that it names, cannot be read as an image (GDAL: {words}): correct it")
    return InputError(f"{path} {_state(head, size, words)}: {_REMEDY}")


def _bytes_of(path: Path) -> tuple[bytes, int]:
    """The first bytes of a file and its size, after reading all of it."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
        size = len(head)
        while piece := stream.read(_PIECE):
            size += len(piece)
    return head, size


def _state(head: bytes, size: int, words: str) -> str:
    """What a file whose bytes are all there is instead of an image."""
    if size == 0:
        return "is empty, not an image"
    if head.startswith(b"version https://git-lfs"):
        return "is not an image but the pointer that Git LFS puts in its place (`git lfs pull` fetches it)"
    if head.lstrip().lower().startswith(_PAGES):
        return "is not an image but text, as a server sends it in place of a file (a page, or a refused login)"
    if not head.startswith(_TIFF):
        return "is damaged, or no image: GDAL knows no such format"
    beyond = re.search(r"offset (\d+)", words)
    if beyond is not None and int(beyond[1]) >= size:
        return f"is damaged: cut off after {size:,} bytes, since its directory should stand at byte {int(beyond[1]):,}"
    return f"is damaged: it begins as a TIFF and cannot be read as one (GDAL: {words})"
