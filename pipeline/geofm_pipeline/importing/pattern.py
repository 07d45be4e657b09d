"""Path patterns with named fields: which files are images, and what their names say of place, date and band.

    'scenes/*/L??{place:6}{date:%Y%j}*_sr_band{band}.tif'

`*` and `?` stand for any characters, or one, of one folder or file name, `**/` for any folders. `{name}` takes one or
more characters, as many as it can, and is kept; `{name:6}` takes six. `{date}` is 20220131 or 2022-01-31, and
`{date:FORMAT}` has the codes of strptime. A field that occurs twice must be the same text in both places.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from geofm_pipeline.errors import InputError

DATE = "date"
WILD = re.compile(r"[*?{}]")
"""What makes a pattern of a path."""
_TOKEN = re.compile(r"\*\*/|\*|\?|\{[^{}]*\}|[^*?{}]+|[{}]")
_FIELD = re.compile(r"\{([A-Za-z_]\w*)(?::(.+))?\}")
_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{2}",
    "d": r"\d{2}",
    "j": r"\d{3}",
    "b": r"[A-Za-z]{3}",
    **dict.fromkeys("HMS", r"\d{2}"),
    "%": "%",
}
_ANY_DATE = r"\d{4}-?\d{2}-?\d{2}"
_EPOCH = date(1970, 1, 1).toordinal()
_DAY = re.compile(r"\s*(\d{4})([-:/]?)(\d{2})\2(\d{2})(?!\d)")
EXAMPLE = "'scenes/{place}_{date:%Y%m%d}.tif'"


@dataclass(frozen=True, kw_only=True)
class Found:
    """One file that a pattern matches."""

    path: Path
    fields: Mapping[str, str]
    """What each field of the pattern stands for in this path."""


@dataclass(frozen=True, kw_only=True)
class PathPattern:
    """A pattern, parsed; make one with :meth:`parse`."""

    text: str
    root: Path
    """The folder before the first wildcard or field; names of files are relative to it."""
    fields: tuple[str, ...]
    """Names of the fields, in order, each once."""
    date_format: str | None
    """strptime format of the date; None for 20220131 and 2022-01-31."""
    regex: re.Pattern[str]
    """What a path relative to `root`, with slashes, must match."""
    glob: str
    """The same for the disk, where a field may be anything."""
    rest: str
    """The pattern behind `root`."""

    @classmethod
    def parse(cls, text: str) -> PathPattern:
        """Parse a pattern; raises InputError naming it and what is wrong."""
        root, relative = _split(text)
        regex, globbed, fields, date_format = "", "", list[str](), None
        for token in _TOKEN.findall(relative):
            field = _FIELD.fullmatch(token)
            if field is None:
                if token[0] in "{}":
                    raise InputError(
                        f"{text!r} has {token!r}: a field is {{name}}, {{name:6}} for six characters, or "
                        f"{{date:%Y%m%d}}, e.g. {EXAMPLE}"
                    )
                regex, globbed = regex + _plain(token), globbed + (token if token[0] in "*?" else glob.escape(token))
                continue
            name, detail = field.groups()
            if name in fields:
                regex += f"(?P={name})"
            else:
                fields.append(name)
                regex += f"(?P<{name}>{_field(text, name, detail)})"
                date_format = detail if name == DATE else date_format
            globbed += "*"
        compiled = re.compile(regex, re.DOTALL)
        return cls(
            text=text,
            root=root,
            fields=tuple(fields),
            date_format=date_format,
            regex=compiled,
            glob=_single(globbed),
            rest=relative,
        )

    @classmethod
    def of_folder(cls, folder: Path) -> PathPattern:
        """All files below a folder, whatever characters its name has."""
        return replace(cls.parse("**/*"), text=str(folder), root=folder)

    @property
    def beginnings(self) -> tuple[PathPattern, ...]:
        """What is left of the pattern when parts are taken from its end, shortest first, the whole not among them."""
        tokens = _TOKEN.findall(self.rest)
        ahead = self.text.removesuffix(self.rest)
        return tuple(PathPattern.parse(ahead + "".join(tokens[:end])) for end in range(1, len(tokens)))

    def find(self) -> list[Found]:
        """All files that match, in order of their names; none where the folder does not exist."""
        names = sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(self.glob) if path.is_file())
        matches = ((name, self.regex.fullmatch(name)) for name in names)
        return [Found(path=self.root / name, fields=match.groupdict()) for name, match in matches if match]

    def day(self, text: str) -> int | None:
        """Days since 1970-01-01 of a date as this pattern writes it; None where it is no date."""
        if self.date_format is None:
            return parse_day(text)
        try:
            found = datetime.strptime(text, self.date_format).replace(tzinfo=UTC)
        except ValueError:
            return None
        return found.date().toordinal() - _EPOCH


def parse_day(text: str) -> int | None:
    """Days since 1970-01-01 of 20220131, 2022-01-31, 2022:01:31, with or without a time behind; None if it is none."""
    match = _DAY.match(text)
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[3]), int(match[4])).toordinal() - _EPOCH
    except ValueError:
        return None


def as_date(day: int) -> str:
    """`2022-01-31` of days since 1970-01-01."""
    return date.fromordinal(day + _EPOCH).isoformat()


def _split(text: str) -> tuple[Path, str]:
    """The folder before the first wildcard or field, and the rest."""
    first = WILD.search(text)
    fixed = text if first is None else text[: first.start()]
    folder, _, _ = fixed.rpartition("/")
    rest = text[len(folder) :].lstrip("/") if folder else text.lstrip("/")
    root = folder or ("/" if text.startswith("/") else ".")
    return Path(root).expanduser(), rest


def _plain(token: str) -> str:
    return {"**/": r"(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))


def _single(globbed: str) -> str:
    """`**` means folders to a disk search; fields side by side are one asterisk."""
    return "**/".join(re.sub(r"\*{2,}", "*", part) for part in globbed.split("**/"))


def _field(text: str, name: str, detail: str | None) -> str:
    """Regular expression of one field."""
    if name == DATE:
        return _ANY_DATE if detail is None else _date_field(text, detail)
    if detail is None:
        return "[^/]+"
    if not detail.isdecimal() or not int(detail):
        raise InputError(f"{text!r}: {{{name}:{detail}}} must say a number of characters, e.g. {{{name}:6}}")
    return f"[^/]{{{int(detail)}}}"


def _date_field(text: str, detail: str) -> str:
    found = ""
    for code, plain in re.findall(r"%(.)|([^%]+|%$)", detail):
        if (code and code not in _DIRECTIVES) or plain == "%":
            raise InputError(
                f"{text!r}: {{date:{detail}}} may have the codes {', '.join('%' + c for c in _DIRECTIVES)}, "
                "e.g. {date:%Y%m%d} or {date:%Y%j}"
            )
        found += _DIRECTIVES[code] if code else re.escape(plain)
    return found
