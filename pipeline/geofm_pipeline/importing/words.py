"""Numbers, and names that were meant, in sentences."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def counted(number: int, word: str) -> str:
    """`1 place`, `1,024 places`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names with commas, `a, b, …` where there are more than `most`."""
    return ", ".join([*names[:most], *(["…"] if len(names) > most else [])])


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The one of some names that is written most like a word, None where none is; case does not count."""
    known = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    return known[found[0]] if found else None


def meant(word: str, names: Iterable[str]) -> str:
    """`; did you mean date?`, or '' where no name is like the word."""
    found = nearest(word, names)
    return f"; did you mean {found}?" if found is not None else ""
