"""What jsonargparse finds wrong with options, in words that name the option, its value and what it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from geofm_model.option_files import OptionFile
from geofm_model.option_names import OptionNames

_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)")
_MISSING = re.compile(r"the following arguments are required: (.+)")
_BARE = re.compile(r"argument (--[\w.]+).*: expected one argument")
_VALUE = re.compile(r'Parser key "([\w.]+)"')
_RULE = re.compile(r"([\w.]+) ")
_LONG = 100


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known where options were refused."""

    names: OptionNames
    words: Sequence[str]
    """Of the command line."""
    files: Sequence[OptionFile]
    """In the order in which they were named."""
    refused: Callable[[OptionFile, str], bool]
    """Whether a file alone is refused for an option."""

    def explained(self, message: str) -> str:
        """A message of jsonargparse for people; one that is not known stays, in one line."""
        line = " ".join(message.split())
        if found := _UNKNOWN.search(line):
            return self._unknown(found[1])
        if found := _MISSING.search(line):
            return self._missing(found[1].split(", "))
        if found := _BARE.match(line):
            name = found[1].removeprefix("--")
            what = self.names.expected(name) if name in self.names.values else "the name of a file is expected"
            return f"{found[1]} has no value: {what}"
        if wrong := [name for name in _VALUE.findall(line) if name in self.names.values]:
            return self._value(wrong[-1])  # a section's file is named before the option in it
        return line

    def placed(self, rule: str) -> str:
        """A broken rule of the settings, which begins with an option's name, with the file that breaks it, if any."""
        found = _RULE.match(rule)
        if found and found[1] in self.names.values and self._word(found[1]) is None:
            for file in reversed(self.files):
                if found[1] in file.given:
                    return f"{file.where}, line {file.given[found[1]].line}: {rule}"
        return rule

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word} is no option: options are written --name=value"
        name = word.lstrip("-").partition("=")[0].rstrip("+")
        if name in self.names.values:
            return f"{word} is no option: it is written with two dashes, --{name}=value"
        return f"{word}: {self.names.missing(name)}"

    def _missing(self, missing: Sequence[str]) -> str:
        first = f"--{missing[0]} is missing: {self.names.expected(missing[0])}"
        others = f" (nor are there {', '.join(missing[1:])})" if len(missing) > 1 else ""
        of_recipes = "; a recipe has those of the network, --config=mae_nano.yaml"
        return first + others + (of_recipes if any(name.startswith("model.") for name in missing) else "")

    def _value(self, name: str) -> str:
        """Of one place that gives the option, that; of several, the first file that is refused alone for it."""
        word, files = self._word(name), [file for file in self.files if name in file.given]
        if word is not None or len(files) > 1:
            files = [file for file in files if self.refused(file, name)]
        if not files:
            word = word or f"--{name}"
            return f"{_short(word)}: {self.names.expected(name, word.partition('=')[2])}"
        given = files[0].given[name]
        text = _short(given.text) or "empty"
        return f"{files[0].where}, line {given.line}: {name} is {text}: {self.names.expected(name, given.text)}"

    def _word(self, name: str) -> str | None:
        """An option as it stands on the command line, as one word."""
        for word, following in zip(self.words, [*self.words[1:], ""], strict=True):
            option, equals, _ = word.partition("=")
            if option in (f"--{name}", f"--{name}+"):
                return word if equals else f"{word}={following}"
        return None


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
