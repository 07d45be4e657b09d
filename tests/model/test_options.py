"""Options that cannot be right, on the command line or in a file, are named as a person would name them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from jsonargparse import SUPPRESS

from geofm_model.option_names import OptionError, OptionNames
from geofm_model.options import (
    Command,
    parse_curves,
    parse_export,
    parse_pretraining,
    parse_reconstruction,
    parser_of,
)

RUN = ("--config", "mae_nano.yaml", "--data.store=S", "--out=R")
PYTHONS = re.compile(r"<class|NoneType|typing|Union|Parser key|Optional")
"""What only programmers can read."""
Parse = Callable[[Sequence[str]], object]


def refused(words: list[str]) -> str:
    """The message of an error of the options of a run."""
    with pytest.raises(OptionError) as caught:
        parse_pretraining(words)
    assert not PYTHONS.search(str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--steps=1e3", "--steps=1e3: a whole number or null is expected, e.g. 1000 ("),
        ("--steps=many", "--steps=many: a whole number or null is expected"),
        ("--steps=", "--steps=: a whole number or null is expected"),
        ("--steps", "--steps has no value: a whole number or null is expected"),
        ("--seed=2.5", "--seed=2.5: a whole number is expected, e.g. 1000"),
        ("--epochs=ten", "--epochs=ten: a number is expected"),
        ("--data.shares=3", "--data.shares=3: a list of numbers or null is expected, e.g. [3]"),
        ("--data.shares=[a,b]", "--data.shares=[a,b]: a list of numbers or null is expected"),
        ("--data.shares=[1,2", "--data.shares=[1,2: a list of numbers or null is expected"),
        ("--optimizer.betas=[0.9]", "--optimizer.betas=[0.9]: a list of 2 numbers is expected, e.g. [0.9,0.95]"),
        ("--optimizer.betas=0.9", "--optimizer.betas=0.9: a list of 2 numbers is expected"),
        ("--model.compile=1", "--model.compile=1: true or false is expected"),
        ("--task.masking=rows", "--task.masking=rows: one of random, space, time, space-time, dates is expected"),
        ("--task.rato=0.5", "--task.rato=0.5: there is no option task.rato: did you mean task.ratio?"),
        ("--batch_size=5", "there is no option batch_size: did you mean data.batch_size?"),
        ("--watch.nothing=5", "there is no option watch.nothing: options of watch are log, checkpoint"),
        ("-steps=3", "-steps=3 is no option: it is written with two dashes, --steps=value"),
        ("extra", "extra is no option: options are written --name=value"),
        ("--model=5", "--model=5 cannot be read (No such file or directory)"),
        ("--model={encoder: 5}", "line 1: model.encoder is 5, but it is a section"),
    ],
)
def test_a_value_of_another_kind_is_named_with_what_is_expected(word: str, message: str) -> None:
    """The option as it was written, the rule, and an example; none of Python's types."""
    assert message in refused([*RUN, word])


@pytest.mark.parametrize(
    ("parse", "words", "message"),
    [
        (parse_curves, ["--runs=a", "--out=c"], "--runs=a: a list of texts is expected, e.g. [a]"),
        (
            parse_reconstruction,
            ["--network=a", "--store=b", "--out=c", "--samples=3"],
            "whole numbers is expected, e.g. [3]",
        ),
        (parse_export, ["--network=a", "--out=b", "--format=onnx"], "--format=onnx: one of geofm, prithvi is expected"),
        (parse_export, ["--network=a"], "--out is missing: text is expected"),
    ],
)
def test_other_commands_speak_alike(parse: Parse, words: list[str], message: str) -> None:
    """One wording for all."""
    with pytest.raises(OptionError, match=re.escape(message)):
        parse(words)


FILES = {
    "nothing": (b"", "is empty: write options into it"),
    "only a comment": (b"# steps: 3\n", "is empty: write options into it"),
    "a list": (b"- steps\n- seed\n", "holds a list: it must hold options by their names"),
    "words": (b"steps 3\n", "holds a single text: it must hold options"),
    "no text": (b"\xff\xfe\x00steps", "is no text in UTF-8 (byte 0)"),
    "control characters": (b"a\0b", "is no YAML (unacceptable character"),
    "no YAML": (b"data: {store: [a\nsteps: 3\n", ", line 2, column 6: this is no YAML (expected ',' or ']'"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", ", line 2, column 1: this is no YAML (expected a single document"),
    "code": (b"seed: !!python/object:os.system x\n", ", line 1, column 7: this is no YAML (could not determine"),
    "a section that is a number": (b"seed: 1\ndata: 5\n", ", line 2: data is 5, but it is a section"),
    "a section that is a list": (b"model: {encoder: [1]}", ", line 1: model.encoder is [1], but it is a section"),
    "a section that is empty": (b"data:\n", ", line 1: data is empty, but it is a section"),
    "an unknown key": (
        b"seed: 1\ndata:\n  stroe: x\n",
        ", line 3: there is no option data.stroe: did you mean data.store?",
    ),
    "an unknown section": (
        b"optimiser: {rate: 1}\n",
        ", line 1: there is no option optimiser: did you mean optimizer?",
    ),
    "a key twice": (b"steps: 3\nsteps: 4\n", ", line 2: steps is there twice"),
    "another file": (b"config: mae_tiny.yaml\n", ", line 1: a file cannot name another one"),
    "a float for a whole number": (
        b"steps: 1e3\n",
        ", line 1: steps is 1e3: a whole number or null is expected, e.g. 1000",
    ),
    "a value that the recipe has right": (
        b"optimizer: {betas: 0.9}\n",
        ", line 1: optimizer.betas is 0.9: a list of 2",
    ),
    "a number out of bounds": (b"epochs: 0\n", ", line 1: epochs must be above 0 and finite, got 0"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, what: str) -> None:
    """Nothing of it is dropped in silence, whether a recipe stands before it or not."""
    content, message = FILES[what]
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    assert refused([*RUN[:2], "--config", str(path), *RUN[2:]]).startswith(
        f"{path}{message}" if message[0] == "," else str(path)
    )
    assert message in refused([*RUN[:2], f"--config={path}", *RUN[2:]])


def test_files_that_are_right_are_read(tmp_path: Path) -> None:
    """With anchors and merges, a mark of the byte order, dotted names, and a section in a file of its own."""
    path, part = tmp_path / "settings.yaml", tmp_path / "watch.yaml"
    path.write_bytes(b"\xef\xbb\xbfdata.batch_size: 12\noptimizer: {<<: {decay: 0.5, rate: 3}, rate: 0.25}\n")
    part.write_text("log: 7\n")
    found = parse_pretraining([*RUN[:2], "--config", str(path), *RUN[2:], f"--watch={part}"])
    assert (found.data.batch_size, found.optimizer.rate, found.optimizer.decay, found.watch.log) == (12, 0.25, 0.5, 7)


def test_a_pipe_and_a_section_in_itself_are_refused(tmp_path: Path) -> None:
    """What can be read only once, and what never ends, is said in a sentence."""
    pipe, endless = tmp_path / "pipe", tmp_path / "endless.yaml"
    os.mkfifo(pipe)
    endless.write_text("model: &m {<<: *m}\n")
    for file, message in ((pipe, "is a pipe"), (endless, "merges a section into itself")):
        with pytest.raises(OptionError, match=message):
            parse_pretraining([f"--config={file}", "--data.store=x", "--out=y"])


def test_of_several_files_the_wrong_one_is_named(tmp_path: Path) -> None:
    """The option is right in the others and on the command line."""
    for name, steps in (("one", "3"), ("two", "many"), ("three", "5")):
        (tmp_path / f"{name}.yaml").write_text(f"steps: {steps}\n")
    files = [word for name in ("one", "two", "three") for word in ("--config", str(tmp_path / f"{name}.yaml"))]
    assert refused([*files, *RUN[2:], "--steps=3"]).startswith(f"{tmp_path / 'two.yaml'}, line 1: steps is many")


@pytest.mark.parametrize("command", get_args(Command))
def test_every_option_is_explained(command: Command) -> None:
    """--help has a sentence for each option of each command."""
    silent = [action.option_strings for action in parser_of(command)._actions if action.help in (None, "", SUPPRESS)]
    assert not silent


@pytest.mark.parametrize("parse", [parse_pretraining, parse_reconstruction, parse_curves, parse_export])
def test_a_command_without_a_word_shows_its_help(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, with exit code 2: nothing was done."""
    with pytest.raises(SystemExit) as caught:
        parse([])
    said = capsys.readouterr()
    assert (caught.value.code, said.out) == (2, "")
    assert said.err.startswith("usage: geofm-train ")


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A section."""

    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Options with a section."""

    part: Inner
    name: str | None = None


def test_names_are_those_of_the_dataclasses() -> None:
    """By their places; sections apart."""
    names = OptionNames.of(Outer)
    assert dict(names.values) == {"part.size": int, "name": str | None}
    assert names.sections == ("part",)
    assert names.below("part") == ["size"]
    assert names.expected("name") == "text or null is expected"
