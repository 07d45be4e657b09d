"""What options there are and what they take, in words; from the settings' own types, so that nothing is said twice."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints


class OptionError(ValueError):
    """An option that cannot be right; the message names it, its value and the rule."""


@dataclass(frozen=True, kw_only=True)
class OptionNames:
    """The options of a command by their dotted names."""

    values: Mapping[str, object]
    """Type of each option that takes a value, e.g. `optimizer.rate`: float."""
    sections: tuple[str, ...]
    """Names of those that hold others, e.g. `optimizer`."""

    @classmethod
    def of(cls, kind: type) -> OptionNames:
        """Those of a dataclass of settings, which may hold others."""
        found = dict(_named("", kind))
        sections = tuple(name for name, of in found.items() if is_dataclass(of))
        return cls(values={name: of for name, of in found.items() if name not in sections}, sections=sections)

    def below(self, section: str) -> list[str]:
        """Names of what a section holds, those of the top for an empty one."""
        start = f"{section}." if section else ""
        known = (name.removeprefix(start) for name in (*self.values, *self.sections) if name.startswith(start))
        return [name for name in known if "." not in name]

    def missing(self, name: str) -> str:
        """That there is no such option, and which may have been meant."""
        section, _, last = name.rpartition(".")
        known = [one for one in (*self.values, *self.sections) if not name.startswith(f"{one}.")]
        beside = [one for one in known if one.rpartition(".")[0] == section]
        near = [one for one in known if _last(one) == last] or _alike(last, beside, 0.6)
        near = near or _alike(last, known, 0.75) or difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near:
            return f"there is no option {name}: did you mean {' or '.join(near)}?"
        section = section if section in self.sections else ""
        of = f" of {section}" if section else ""
        return f"there is no option {name}: options{of} are {', '.join(self.below(section))}"

    def expected(self, name: str, given: str | None = None) -> str:
        """What an option takes, after the text that it was given.

        >>> OptionNames(values={"steps": int | None}, sections=()).expected("steps", "1e3")
        'a whole number or null is expected, e.g. 1000'
        """
        kind = self.values[name]
        example = _meant(kind, given) or _example(kind)
        return f"{_words(kind)} is expected" + (f", e.g. {example}" if example else "")


def _named(prefix: str, kind: type) -> Iterator[tuple[str, object]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        yield prefix + field.name, hint
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _named(f"{prefix}{field.name}.", hint)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _alike(last: str, names: list[str], least: float) -> list[str]:
    """Those whose last part is spelled most like `last`, if `least` or more of it is the same."""
    alike = difflib.get_close_matches(last, map(_last, names), n=1, cutoff=least)
    return [one for one in names if _last(one) in alike]


_MOST = 1e15
"""Whole numbers beyond this one are nobody's option."""
_WORDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}
_LISTS: Mapping[object, tuple[str, str]] = {
    int: ("whole numbers", "[0,7]"),
    float: ("numbers", "[0.5,2]"),
    str: ("texts", "[A,B]"),
}
"""Of the kinds of a list's items, their plural and an example."""


def _words(kind: object) -> str:
    """What is taken, e.g. `a whole number or null`."""
    if kind in _WORDS:
        return _WORDS[kind]
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if get_origin(kind) is list:
        return f"a list of {_LISTS[parts[0]][0]}"
    if get_origin(kind) is tuple:
        return f"a list of {len(parts)} {_LISTS[parts[0]][0]}"
    return " or ".join(map(_words, parts))


def _example(kind: object) -> str | None:
    parts = get_args(kind)
    if get_origin(kind) is list:
        return _LISTS[parts[0]][1]
    if get_origin(kind) is tuple:
        return f"[{','.join(['0.9', '0.95', '0.99'][: len(parts)])}]"
    if kind in (int, float):
        return "1000" if kind is int else "0.5"
    return next((found for part in parts if (found := _example(part))), None)


def _meant(kind: object, given: str | None) -> str | None:
    """A text as it should have been written, where that can be told: 1000 for 1e3, [3] for 3."""
    try:
        value = float(given or "")
    except ValueError:
        value = math.nan
    whole = str(int(value)) if abs(value) < _MOST and value == int(value) else None
    parts = get_args(kind)
    if get_origin(kind) is list:
        item = {int: whole, float: given if math.isfinite(value) else None, str: given}[parts[0]]
        return f"[{item}]" if item and item[0] not in "[{" else None
    return whole if int in (kind, *parts) else next((one for part in parts if (one := _meant(part, given))), None)
