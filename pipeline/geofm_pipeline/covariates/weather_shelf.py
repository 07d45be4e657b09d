"""Monthly means in the user's cache, so that another dataset of the same ground and years reads nothing again.

Files there never change, and their names say all that they depend on but the place that the source is read from, which
has a folder of its own (geofm_pipeline.stages.cells). Beside each stands its SHA-256: a file that is not what was
written, here or in the run's folder, counts as not there and is made anew. The cache may be deleted at any time; more
than CACHE_BYTES of one run are not put into it, nor is anything where it cannot be written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from geofm_pipeline.access.tally import Tally
from geofm_pipeline.covariates.named_sources import SourceRecord
from geofm_pipeline.digests import short_digest
from geofm_pipeline.errors import ResourceError
from geofm_pipeline.workspace import file_digest, write_text

CACHE_BYTES = 2 << 30
"""Of the means of one run that are put into the user's cache at most."""


@dataclass(frozen=True, kw_only=True)
class PreparedWeather:
    """Monthly means in files, for the workers."""

    files: tuple[Path, ...]
    """MeansFile of temperature and of precipitation."""
    digest: str
    """Of the source, the years and the means' place on the grid."""
    notes: tuple[str, ...]
    """What stood in for what."""
    record: SourceRecord | None = None
    """Of a source with a name."""
    tally: Tally = field(default_factory=Tally, compare=False)
    """What reading cost."""


class MeansShelf:
    """The user's cache of means; does nothing without a folder.

    Parameters
    ----------
    folder : of the cache, None for none
    inputs : all that the means of a run depend on
    """

    def __init__(self, folder: Path | None, inputs: object) -> None:
        self._folder = folder
        self._name = f"prepared-{short_digest(inputs)}.json"

    def whole(self, target: Path) -> PreparedWeather | None:
        """What was prepared before from the same inputs, with its files brought to `target`."""
        if self._folder is None:
            return None
        try:
            found = json.loads((self._folder / self._name).read_text())
            names = (*found["strips"], *found["files"])
            prepared = PreparedWeather(
                files=tuple(target / name for name in found["files"]),
                digest=found["digest"],
                notes=tuple(found["notes"]),
                record=SourceRecord.from_dict(found["record"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AssertionError):  # absent, or not what this version writes
            return None
        return prepared if all(self.fetched(target / name) for name in names) else None

    def fetched(self, path: Path) -> bool:
        """Whether a file is there as it was written, or could be brought from the cache; a damaged one is removed."""
        if is_sealed(path):
            return True
        if self._folder is None:
            return False
        kept = self._folder / path.name
        return is_sealed(kept) and _linked(kept, path) and _linked(_seal(kept), _seal(path))

    def keep(self, prepared: PreparedWeather, strips: Sequence[Path]) -> None:
        """Keep strips, and the whole where no requested year is lacking, since the source may get it later."""
        if self._folder is None or sum(path.stat().st_size for path in strips) > CACHE_BYTES:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        there = True
        for path in (*strips, *prepared.files):
            kept = self._folder / path.name
            there &= is_sealed(kept) or (_linked(path, kept) and _linked(_seal(path), _seal(kept)))
        if prepared.record is None or prepared.record.years_lacking or not there:
            return
        whole = {
            "strips": [path.name for path in strips],
            "files": [path.name for path in prepared.files],
            "digest": prepared.digest,
            "notes": list(prepared.notes),
            "record": prepared.record.as_dict(),
        }
        with suppress(OSError, ResourceError):
            write_text(self._folder / self._name, json.dumps(whole))


def seal(path: Path) -> None:
    """Write a file's SHA-256 beside it; a file without one counts as not there."""
    write_text(_seal(path), file_digest(path))


def is_sealed(path: Path) -> bool:
    """Whether a file is what it was when it was sealed; one that is not is removed with its seal."""
    try:
        if file_digest(path) == _seal(path).read_text():
            return True
    except (OSError, ValueError):
        pass
    with suppress(OSError):  # a folder that cannot be written keeps it, and it is not used
        path.unlink(missing_ok=True)
        _seal(path).unlink(missing_ok=True)
    return False


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _linked(source: Path, target: Path) -> bool:
    """Bring a file, which is never changed, to another place: by a link, or by a copy that appears when it is whole."""
    if target.exists():
        return True
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False
    except OSError:
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            return False
    return True
