"""The day of each image file: from its name or table, else from a tag; where neither has it, where it may be found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from geofm_pipeline.errors import InputError
from geofm_pipeline.importing.config import ImportConfig
from geofm_pipeline.importing.listing import ListedFile
from geofm_pipeline.importing.pattern import WILD, as_date, parse_day
from geofm_pipeline.importing.rasters import Header
from geofm_pipeline.importing.rows import SUFFIXES
from geofm_pipeline.importing.words import counted, listed, nearest

_DATE_IN_NAME = re.compile(r"(?<!\d)(\d{4}-\d{2}-\d{2}|\d{8})(?!\d)")


def days_of(files: Sequence[ListedFile], headers: Sequence[Header], config: ImportConfig) -> list[int]:
    """Days since 1970-01-01, one per file.

    Raises
    ------
    InputError
        When a file has no date, lacks the tag, or is older than 1970.
    """
    found = [_day(file, header, config) for file, header in zip(files, headers, strict=True)]
    for file, header, day in zip(files, headers, found, strict=True):
        if day is None:
            raise InputError(_undated(file, header, headers, config))
        if day < 0:
            raise InputError(f"{file.path} is of {as_date(day)}: a store counts days from 1970-01-01")
    return [day for day in found if day is not None]


def _day(file: ListedFile, header: Header, config: ImportConfig) -> int | None:
    if file.day is not None:
        return file.day
    tag = None if config.date_tag is None else header.tags.get(config.date_tag)
    return None if tag is None else parse_day(tag)


def _undated(file: ListedFile, header: Header, headers: Sequence[Header], config: ImportConfig) -> str:
    """Why a file has no date, and the nearest way to one."""
    likely = [name for name, value in header.tags.items() if parse_day(value) is not None]
    tag = config.date_tag
    if tag is None:
        hint = f"; it has a day in the tag {likely[0]}: --date-tag {likely[0]}" if likely else _dated_name(file, config)
        return (
            f"{file.path} has no date: put {{date:%Y%m%d}} into the pattern of --images, a column date into the table, "
            f"or name a tag of the files by --date-tag{hint}"
        )
    if tag in header.tags:
        others = f"; a day is in {listed(likely)}" if likely else ""
        return (
            f"{file.path} has no date: its tag {tag} is {header.tags[tag]!r}, which is none{others}. A date is "
            "2022-01-31, 20220131 or 2022:01:31, with or without a time behind it"
        )
    near, having = nearest(tag, likely) or nearest(tag, header.tags), sum(tag in one.tags for one in headers)
    share = f"only {having:,} of {counted(len(headers), 'file')} have" if having else "no file has"
    hint = f"; did you mean --date-tag {near}?" if near else f"; a day is in {listed(likely)}" if likely else ""
    return (
        f"{file.path} has no date: --date-tag {tag} names a tag that {share}. Here the tags are "
        f"{listed(list(header.tags)) or 'none'}{hint or _dated_name(file, config)}"
    )


def _dated_name(file: ListedFile, config: ImportConfig) -> str:
    """`; its name seems to have one: --images …`, or '' where it has none, or a table says what files are."""
    days = [found for found in _DATE_IN_NAME.findall(Path(file.name).name) if parse_day(found) is not None]
    if not days or Path(config.images).suffix.lower() in SUFFIXES:
        return ""
    if len(days) > 1:
        return f"; its name has {listed(days)}: put {{date}} into the pattern in the place of the one that is meant"
    if WILD.search(config.images):
        return f"; its name seems to have one ({days[0]}), so {{date}} may stand for that part of the pattern"
    folder = file.path.removesuffix(file.name).rstrip("/")
    return f"; its name seems to have one: --images '{folder}/**/*{{date}}*{Path(file.name).suffix}'"
