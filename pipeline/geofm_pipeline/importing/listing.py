"""Which files are images: found by a folder, a pattern or a table, before any of them is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import SENSOR_CODE, Sensor
from geofm_pipeline.importing.absent import beside, missing_path, no_image_in, no_match
from geofm_pipeline.importing.config import DEFAULT_SENSOR, ImportConfig
from geofm_pipeline.importing.pattern import DATE, WILD, Found, PathPattern, parse_day
from geofm_pipeline.importing.rows import OTHER_TABLES, SUFFIXES, Row, read_rows

_TIFFS = (".tif", ".tiff")
_BAND = "band"


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """One image file, or one band of an image, as a name or a row of a table has it."""

    name: str
    """Path below the folder of the listing, with slashes: what the dataset calls it wherever the folder lies."""
    path: str
    """Absolute path."""
    place: str | None
    """None where nothing names places: then those on one grid are one."""
    day: int | None
    """Days since 1970-01-01; None where a tag of the file has it."""
    band: str | None
    """Which band it is; None for a file that has all of them."""
    mask: str
    """Absolute path of the cloud mask, '' without one."""
    stratum: int
    sensor: Sensor
    bytes: int
    """Size of the file and its mask."""
    changed: int
    """When file or mask were last changed, nanoseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All image files of an import, in order of their names."""

    files: tuple[ListedFile, ...]
    said: tuple[str, ...]
    """What the user should know of what was left out."""

    @property
    def summary(self) -> str:
        """Number of files and a digest of what is said of them; equal for equal listings, wherever they lie."""
        digest = hashlib.sha256()
        for file in self.files:
            mask = bool(file.mask)
            facts = (file.name, file.place, file.day, file.band, mask, file.stratum, file.sensor, file.bytes)
            digest.update(f"{facts}\n".encode())
        return f"{len(self.files)} files, {digest.hexdigest()[:12]}"


def list_images(config: ImportConfig) -> Listing:
    """The image files that --images names.

    Raises
    ------
    InputError
        When a path does not exist, a pattern or table cannot be right, a mask is missing, or options contradict.
    NothingFoundError
        When a folder holds no image, or no file fits a pattern.
    """
    if "://" in config.images:
        raise InputError(f"--images {config.images} is an address, and an import reads local files: download it first")
    source = Path(config.images).expanduser()
    if source.suffix.lower() in OTHER_TABLES and source.is_file():
        raise InputError(f"--images {source} is no table that is read here: save it as CSV in UTF-8, or as Parquet")
    is_table = source.suffix.lower() in SUFFIXES and not source.is_dir()
    if not source.exists() and (is_table or not WILD.search(config.images)):
        raise missing_path("--images", source)
    if is_table and config.mask is not None:
        raise InputError("--mask goes with a pattern: in a table the column mask names the mask of each file")
    listing = _from_table(source, config) if is_table else _from_pattern(source, config)
    if any(file.mask for file in listing.files) != (config.mask_values is not None):
        raise InputError(
            "cloud masks and --mask-values belong together: --mask (or the column mask) names the files, --mask-values "
            "says what their values mean, e.g. cfmask, scl or 0=clear,1=cloud"
        )
    return listing


def _from_pattern(source: Path, config: ImportConfig) -> Listing:
    is_folder = source.is_dir()
    pattern = PathPattern.of_folder(source) if is_folder else PathPattern.parse(config.images)
    found = pattern.find() if is_folder else _found("--images", pattern)
    if is_folder:
        found = [file for file in found if file.path.suffix.lower() in _TIFFS]
        if not found:
            raise no_image_in(source, _TIFFS)
    masks = _Masks(config.mask, pattern) if config.mask is not None else None
    if masks is not None:
        found = [file for file in found if file.path.absolute() not in masks.paths]
        if not found:
            raise InputError(
                f"--images {config.images} and --mask {config.mask} name the same files: which are images, which masks?"
            )
    files = tuple(_of_found(file, pattern, masks, config) for file in found)
    undated = [file.name for file, match in zip(files, found, strict=True) if DATE in match.fields and file.day is None]
    if undated:
        raise InputError(f"--images {config.images}: the date in the name of {undated[0]} is no day of the calendar")
    unused = config.date_tag is not None and all(file.day is not None for file in files)
    said = (f"--date-tag {config.date_tag} is not used, since the names have the dates",) if unused else ()
    return Listing(files=files, said=said)


def _found(option: str, pattern: PathPattern) -> list[Found]:
    """Files that a pattern matches; raises where its folder does not exist, or nothing matches."""
    if not pattern.root.is_dir():
        raise missing_path(option, pattern.root)
    found = pattern.find()
    if not found:
        raise no_match(option, pattern)
    return found


def _of_found(file: Found, pattern: PathPattern, masks: _Masks | None, config: ImportConfig) -> ListedFile:
    path = str(file.path.absolute())
    mask = "" if masks is None else masks.of(file)
    return ListedFile(
        name=file.path.relative_to(pattern.root).as_posix(),
        path=path,
        place=file.fields.get("place"),
        day=pattern.day(file.fields[DATE]) if DATE in file.fields else None,
        band=file.fields.get(_BAND),
        mask=mask,
        stratum=0,
        sensor=config.sensor or DEFAULT_SENSOR,
        **_stat(path, mask),
    )


class _Masks:
    """Masks found by a pattern, by the fields that it shares with the pattern of the images."""

    def __init__(self, text: str, images: PathPattern) -> None:
        pattern = PathPattern.parse(text)
        self._text, self._shared = text, [name for name in pattern.fields if name != _BAND]
        if not self._shared or not set(self._shared) <= set(images.fields):
            raise InputError(
                f"--mask {text!r} needs fields, all of them fields of --images {images.text!r}: by them a mask finds "
                "its image"
            )
        self._known: dict[tuple[str, ...], Path] = {}
        for file in _found("--mask", pattern):
            before = self._known.setdefault(self._key(file.fields), file.path)
            if before != file.path:
                raise InputError(f"--mask {text!r}: {before} and {file.path} are masks of the same image")
        self.paths = frozenset(path.absolute() for path in self._known.values())

    def of(self, image: Found) -> str:
        """Absolute path of an image's mask; raises InputError where there is none."""
        found = self._known.get(self._key(image.fields))
        if found is None:
            raise InputError(f"--mask {self._text!r}: {image.path} has no mask; every image needs one")
        return str(found.absolute())

    def _key(self, fields: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(fields[name] for name in self._shared)


def _from_table(source: Path, config: ImportConfig) -> Listing:
    rows, said = read_rows(source)
    files = sorted((_of_row(source, row, config) for row in rows), key=lambda file: file.name)
    twice = [a.name for a, b in pairwise(files) if a.name == b.name]
    if twice:
        raise InputError(f"--images {source} names {twice[0]} twice: each file may stand there once")
    return Listing(files=tuple(files), said=said)


def _of_row(source: Path, read: Row, config: ImportConfig) -> ListedFile:
    where, row = f"--images {source}, {read.where}", read.cells
    if not row["file"]:
        raise InputError(f"{where}: the cell of file is empty, a path should stand there")
    path = os.path.normpath(source.parent.absolute() / Path(row["file"]).expanduser())
    mask = row.get("mask", "")
    mask = os.path.normpath(source.parent.absolute() / Path(mask).expanduser()) if mask else ""
    text, stratum, sensor = row.get("date", ""), row.get("stratum", ""), row.get("sensor") or config.sensor
    day = parse_day(text) if text else None
    if text and day is None:
        raise InputError(f"{where}: the date {text!r} is no day: write 2022-01-31 or 20220131")
    stratum = stratum.removesuffix(".0")
    if stratum and not (stratum.isdecimal() and int(stratum) < 2**31):
        raise InputError(f"{where}: the stratum {stratum!r} must be a whole number from 0")
    if sensor not in (None, *SENSOR_CODE):
        raise InputError(f"{where}: the sensor {sensor!r} must be L30 or S30")
    for file in (path, mask):
        if file and not Path(file).is_file():
            wrong = "is a folder, not an image" if Path(file).is_dir() else f"does not exist{beside(Path(file))}"
            raise InputError(f"{where}: {file} {wrong}; paths are relative to the table's folder")
    return ListedFile(
        name=Path(os.path.relpath(path, source.parent.absolute())).as_posix(),
        path=path,
        place=row.get("place") or None,
        day=day,
        band=row.get(_BAND) or None,
        mask=mask,
        stratum=int(stratum or 0),
        sensor="L30" if sensor == "L30" else DEFAULT_SENSOR,
        **_stat(path, mask),
    )


def _stat(path: str, mask: str) -> dict[str, int]:
    found = [Path(file).stat() for file in (path, mask) if file]
    return {"bytes": sum(stat.st_size for stat in found), "changed": max(stat.st_mtime_ns for stat in found)}
