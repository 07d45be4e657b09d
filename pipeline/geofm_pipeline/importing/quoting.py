"""Words of the command line as a shell leaves them: an unquoted pattern comes as the many names that it found.

Looked at before the options are parsed: a parser could only call the other names unknown, and would take the last of
two --images for all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from geofm_pipeline.errors import InputError
from geofm_pipeline.importing.words import listed

_PATTERNS = ("--images", "--mask")
_NUMBERS = ("--offset", "--nodata")


def check_quotes(argv: Sequence[str]) -> None:
    """Raise InputError where an option that takes one pattern stands before several words or twice, or a word stands
    before any option."""
    if argv and not argv[0].startswith("-"):
        raise InputError(f"{argv[0]!r} stands before any option: name the images by --images '{argv[0]}'")
    for option in _PATTERNS:
        if sum(word.partition("=")[0] == option for word in argv) > 1:
            raise InputError(
                f"{option} stands there twice and takes one pattern: name all files by one, where * stands for any "
                "characters and **/ for any folders, or by a table"
            )
        words = _behind(argv, option)
        if len(words) > 1:
            raise InputError(
                f"{option} takes one word, and {len(words)} stand behind it ({listed(words, 3)}): the shell has put "
                f"names in the place of an unquoted pattern, or taken a name with spaces apart. Put it into quotes: "
                f"{option} '{_pattern_of(words)}'"
            )


def join_numbers(argv: Sequence[str]) -> list[str]:
    """Write `--nodata -3.4e+38` as one word, since argparse takes `-3.4e+38` for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in _NUMBERS and re.match(r"-[\d.]", word):
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return joined


def _behind(argv: Sequence[str], option: str) -> list[str]:
    """The words between an option and the next one."""
    if option not in argv:
        return []
    rest = argv[argv.index(option) + 1 :]
    end = next((at for at, word in enumerate(rest) if word.startswith("-")), len(rest))
    return list(rest[:end])


def _pattern_of(words: Sequence[str]) -> str:
    """The name that the words make with spaces, if there is one, else a pattern that finds all of them."""
    whole = " ".join(words)
    if Path(whole).exists() or not Path(words[0]).exists():
        return whole
    if len({Path(word).is_absolute() for word in words}) > 1:
        return whole
    folder, suffixes = os.path.commonpath([str(Path(word).parent) for word in words]), {Path(w).suffix for w in words}
    depth = "" if all(Path(word).parent == Path(folder or ".") for word in words) else "**/"
    return (Path(folder) / f"{depth}*{suffixes.pop() if len(suffixes) == 1 else ''}").as_posix()
