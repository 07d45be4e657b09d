"""YAML files of options, read strictly before they count: what is no option is named with its file and line.

jsonargparse, which reads them again, drops a section that is no mapping, and the first of two equal keys,
without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from geofm_model.option_names import OptionError, OptionNames

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, kw_only=True)
class Given:
    """A value in a file."""

    line: int
    """From 1."""
    text: str
    """As it is written."""


@dataclass(frozen=True, kw_only=True)
class OptionFile:
    """What a file gives, by the options' dotted names."""

    where: str
    """Its path, or the option and the path, for messages."""
    word: str
    """The option that names it, e.g. `--config=FILE`."""
    given: Mapping[str, Given]


def read_option_file(value: str, names: OptionNames, *, section: str = "") -> OptionFile:
    """The file that --config, or the option of a section, names.

    Parameters
    ----------
    value : path of the file; a section may also be written out, in braces
    section : whose options it holds; empty for those of the whole command

    Raises
    ------
    OptionError
        When it cannot be read, is no YAML, or holds anything but options of the command, each once.
    """
    word = f"--{section or 'config'}={value}"
    where = word if section else value
    tree = _tree(where, value if section and value.lstrip().startswith("{") else _text(where, value))
    if tree is None:
        raise OptionError(f"{where} is empty: write options into it, such as 'seed: 1', or leave it out")
    if not isinstance(tree, yaml.MappingNode):
        what = "a list" if isinstance(tree, yaml.SequenceNode) else "a single text"
        raise OptionError(f"{where} holds {what}: it must hold options by their names, such as 'seed: 1'")
    try:
        return OptionFile(where=where, word=word, given=dict(_options(where, tree, names, section)))
    except RecursionError:
        raise OptionError(f"{where} merges a section into itself: write its options out") from None


def _text(where: str, path: str) -> str:
    file = Path(path).expanduser()
    if file.is_fifo() or file.is_char_device():
        raise OptionError(f"{where} is a pipe, which can be read only once: write it to a file first")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(f"{where} is no text in UTF-8 (byte {error.start}): give a YAML file of options") from None
    except OSError as error:
        raise OptionError(f"{where} cannot be read ({error.strerror}): give a YAML file of options") from None


def _tree(where: str, text: str) -> yaml.Node | None:
    """What the text says, with the place of each word, once it is known that its values can be built."""
    if text.lstrip().startswith("{"):  # JSON may be indented by tabs, YAML not
        text = text.replace("\t", " ")
    try:
        yaml.safe_load(text)
        tree: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        problem = error.problem or ""
        said = f"{error.context}, {problem}" if problem.startswith("but") or not problem else problem
        raise OptionError(f"{where}{line}: this is no YAML ({said})") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date that is none
        raise OptionError(f"{where} is no YAML ({str(error).splitlines()[0]}): give a YAML file of options") from None
    return tree


def _options(where: str, tree: yaml.MappingNode, names: OptionNames, section: str) -> Iterator[tuple[str, Given]]:
    """Values below a section."""
    seen: set[str] = set()
    for key, value in tree.value:
        at = f"{where}, line {key.start_mark.line + 1}"
        if key.tag == _MERGE:  # what an anchor holds, by `<<: *anchor`
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _options(where, part, names, section)
            continue
        name = f"{section}.{_said(key)}" if section else _said(key)
        if name in seen:
            raise OptionError(f"{at}: {name} is there twice, and only one can count: keep one of them")
        seen.add(name)
        if name == "config":
            raise OptionError(f"{at}: a file cannot name another one: give both by --config, the general one first")
        if name in names.values:
            yield name, Given(line=key.start_mark.line + 1, text=_said(value))
        elif name in names.sections:
            yield from _options(where, _section(at, name, value, names), names, name)
        else:
            raise OptionError(f"{at}: {names.missing(name)}")


def _section(at: str, name: str, value: yaml.Node, names: OptionNames) -> yaml.MappingNode:
    if not isinstance(value, yaml.MappingNode):
        raise OptionError(
            f"{at}: {name} is {_said(value) or 'empty'}, but it is a section: write its options below it, indented "
            f"({', '.join(names.below(name))}), or leave it out"
        )
    return value


def _said(node: yaml.Node) -> str:
    """A node as it stands in the file, in one line."""
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    buffer, start, end = node.start_mark.buffer, node.start_mark.index, node.end_mark.index
    return " ".join(buffer[start:end].split()) if buffer else "a list or section"
