"""Images that are not there: how far a path or a pattern is right, and what lies there instead.

Three faults look alike to a user and need different remedies: a folder that does not exist, a folder that holds no
image, and a pattern that none of a folder's files fits. Only called when nothing was found; reads names, no files.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from geofm_pipeline.errors import InputError, NothingFoundError
from geofm_pipeline.importing.pattern import EXAMPLE, PathPattern
from geofm_pipeline.importing.words import counted, listed, meant

_MOST = 10_000
"""Names that are looked at: enough to say what kind of folder it is."""


def missing_path(option: str, path: Path) -> InputError:
    """An error for a path that does not exist; it names the part that is wrong and what may have been meant."""
    return InputError(f"{option} {path} does not exist{beside(path)}")


def beside(path: Path) -> str:
    """`; did you mean …?` with a name beside a missing path, else what lies in the folder as far as it exists."""
    whole = path.absolute()
    there = next((parent for parent in whole.parents if parent.is_dir()), None)
    if there is None or not os.access(there, os.R_OK):
        return ""
    wrong = whole.relative_to(there).parts[0]
    names = sorted(entry.name for entry in there.iterdir() if not entry.name.startswith("."))
    return meant(wrong, names) or f"; {there} exists and holds {listed(names, 5) or 'nothing'}"


def no_image_in(folder: Path, suffixes: Sequence[str]) -> NothingFoundError:
    """An error for a folder without a file of these suffixes."""
    names = _below(folder)
    if not names:
        return NothingFoundError(f"--images {folder} is an empty folder: name the one that holds the images")
    common = Counter(suffix for name in names if (suffix := Path(name).suffix)).most_common(1)
    suffix = common[0][0] if common else ".jp2"
    return NothingFoundError(
        f"--images {folder} holds no file that ends in {' or '.join(suffixes)}; {_there_are(names)}, e.g. {names[0]}: "
        f"name images of another kind by a pattern in quotes, such as '{folder}/**/*{suffix}'"
    )


def no_match(option: str, pattern: PathPattern) -> NothingFoundError | InputError:
    """An error for a pattern that no file of its folder fits: how many there are, one of them, and where it departs.

    Without images there is nothing to import; without masks the option is wrong.
    """
    names, error = _below(pattern.root), NothingFoundError if option == "--images" else InputError
    if not names:
        return error(f"no file fits {option} '{pattern.text}', for {pattern.root} is an empty folder: name another")
    fitting, example = _reach(pattern, names)
    far = f"which it fits up to '{fitting}': change what follows" if fitting else "whose beginning it does not fit"
    return error(
        f"no file fits {option} '{pattern.text}': below {pattern.root} {_there_are(names)}, e.g. {example}, {far} "
        f"(a pattern is like {EXAMPLE}, and * stands for any characters)"
    )


def _reach(pattern: PathPattern, names: Sequence[str]) -> tuple[str, str]:
    """The longest beginning of a pattern that begins a name, and that name."""
    for beginning in reversed(pattern.beginnings):
        match = next((name for name in names if beginning.regex.match(name)), None)
        if match is not None:
            return beginning.text, match
    return "", names[0]


def _there_are(names: Sequence[str]) -> str:
    """`there is 1 file`, `there are 6 files`."""
    number = f"more than {_MOST:,} files" if len(names) >= _MOST else counted(len(names), "file")
    return f"there {'is' if len(names) == 1 else 'are'} {number}"


def _below(folder: Path) -> list[str]:
    """Names of files below a folder, relative to it, in order; at most _MOST."""
    return sorted(itertools.islice(_walk(folder), _MOST))


def _walk(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield (Path(place) / name).relative_to(folder).as_posix()
