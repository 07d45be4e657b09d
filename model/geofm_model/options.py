"""Command line and YAML to settings: the only jsonargparse user of this distribution.

`--config FILE` is read first, options after it change it. A recipe of the package (geofm_model/recipes) is named like a
file; a file of that name in the current folder comes before it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeVar, get_type_hints

from jsonargparse import (
    ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]  # its own documentation imports it from here
    ArgumentError,
    ArgumentParser,
    set_parsing_settings,
)

from geofm_model.models import Masking
from geofm_model.option_files import OptionFile, read_option_file
from geofm_model.option_names import OptionError, OptionNames
from geofm_model.option_words import Finding
from geofm_model.training.settings import Pretraining
from geofm_model.training.trained import Weights

PROGRAM = "geofm-train"
Command = Literal["pretrain", "reconstruct", "curves", "export"]
Options = TypeVar("Options")


def recipes() -> dict[str, Path]:
    """The package's recipes by file name."""
    folder = Path(str(files("geofm_model") / "recipes"))
    return {path.name: path for path in sorted(folder.glob("*.yaml"))}


def parse_pretraining(argv: Sequence[str]) -> Pretraining:
    """Settings of a run.

    Raises
    ------
    OptionError
        With the option, its value and the rule.
    SystemExit
        After --help or --print_config; without any option its code is 2, and the help stands on stderr: a script that
        has lost its words has not done what it was for.
    """
    return _parsed(_with_recipe(argv), "pretrain", Pretraining)


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions:
    """Hide patches of some samples and draw what a trained network makes of them."""

    network: str
    """Folder of a run, a checkpoint or an export, or a Prithvi .pt file."""
    store: str
    """A store, or a dataset folder that has one, by path or address."""
    samples: list[int]
    """Indices of samples in the store, e.g. [0,7]."""
    out: str
    """PNG to write."""
    ratio: float | None = None
    """Share of tokens that are hidden; null as in training."""
    masking: Masking | None = None
    """What is hidden together; null as in training."""
    drop_bands: int | None = None
    """Bands that are withheld from all tokens; null as in training."""
    dates: int | None = None
    """Dates of a view; null as in training."""
    size: int | None = None
    """Edge of a view in pixels; null as in training."""
    seed: int = 0
    """Of the masks."""
    weights: Weights = "best"
    """Of a run: the moving `average`, the `last` ones, or the `best`: the average where there is one."""


@dataclass(frozen=True, kw_only=True)
class CurvesOptions:
    """Draw the losses of one or several runs."""

    runs: list[str]
    """Folders of runs, e.g. [RUN1,RUN2]."""
    out: str
    """PNG to write."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write the weights of a run, with what is needed beside them, into a new folder."""

    network: str
    """Folder of a run, a checkpoint or an export, or a Prithvi .pt file."""
    out: str
    """New folder."""
    format: Literal["geofm", "prithvi"] = "geofm"
    """safetensors and config.json of our own, or a .pt with Prithvi's names that TerraTorch reads."""
    part: Literal["whole", "encoder"] = "whole"
    """The encoder alone, or the decoder with it where there is one."""
    weights: Weights = "best"
    """Of a run: the moving `average`, the `last` ones, or the `best`: the average where there is one."""


def parse_reconstruction(argv: Sequence[str]) -> ReconstructionOptions:
    """As :func:`parse_pretraining`."""
    return _parsed(argv, "reconstruct", ReconstructionOptions)


def parse_curves(argv: Sequence[str]) -> CurvesOptions:
    """As :func:`parse_pretraining`."""
    return _parsed(argv, "curves", CurvesOptions)


def parse_export(argv: Sequence[str]) -> ExportOptions:
    """As :func:`parse_pretraining`."""
    return _parsed(argv, "export", ExportOptions)


def _parsed(argv: Sequence[str], command: Command, kind: type[Options]) -> Options:
    """Options of a command from its dataclass."""
    parser = parser_of(command)
    if not argv:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    names, read = OptionNames.of(kind), list[OptionFile]()
    finding = Finding(names=names, words=argv, files=read, refused=partial(_refused, parser))
    try:
        _refuse_twice(argv)
        read += _files(argv, names)
        made = parser.instantiate(parser.parse_args(list(argv)))
        return kind(**{name: made[name] for name in get_type_hints(kind)})
    except ArgumentError as error:
        said = finding.explained(str(error))
    except (TypeError, ValueError) as error:  # a rule of the settings themselves
        said = finding.placed(str(error))
    raise OptionError(f"{said} (see {PROGRAM} {command} --help)")


def parser_of(command: Command) -> ArgumentParser:
    """The parser of a command, one option per field of its settings, explained by the sentence under it."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    kind = _KINDS[command]
    of_files = command == "pretrain"  # the others have a few options only
    parser = ArgumentParser(
        prog=f"{PROGRAM} {command}",
        description=_PRETRAIN if of_files else (kind.__doc__ or "").strip(),
        epilog=_epilog() if of_files else None,
        exit_on_error=False,
        allow_abbrev=False,
    )
    if of_files:
        parser.add_argument("--config", action=ActionConfigFile, help="a recipe, or a YAML file of these options")
    parser.add_class_arguments(kind, nested_key=None, fail_untyped=True)
    return parser


_KINDS: Mapping[Command, type] = {
    "pretrain": Pretraining,
    "reconstruct": ReconstructionOptions,
    "curves": CurvesOptions,
    "export": ExportOptions,
}
_PRETRAIN = "Pre-train a masked autoencoder on stores of geofm-sample. The same command continues a run."


def _epilog() -> str:
    return (
        f"Recipes for --config: {', '.join(recipes())}. Several GPUs: torchrun --nproc-per-node=N -m geofm_model "
        "pretrain … (docs/pretraining.md)"
    )


def _files(argv: Sequence[str], names: OptionNames) -> Iterator[OptionFile]:
    """The files that are named for all options, or for those of a section."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.removeprefix("--").partition("=")
        value = value if equals else following
        of_files = word.startswith("--") and (name in names.sections or (name == "config" and bool(names.sections)))
        if of_files and value and not value.startswith("--"):
            yield read_option_file(value, names, section="" if name == "config" else name)


def _refused(parser: ArgumentParser, file: OptionFile, name: str) -> bool:
    try:
        parser.parse_args([file.word])
    except ArgumentError as error:
        return f'Parser key "{name}"' in str(error)
    return False


def _refuse_twice(argv: Sequence[str]) -> None:
    """The last one would win without a word."""
    names = [word.partition("=")[0] for word in argv if word.startswith("--")]
    twice = [name for name in names if names.count(name) > 1 and name != "--config" and not name.endswith("+")]
    if twice:
        raise OptionError(f"{twice[0]} is given twice: give it once; several values are written {twice[0]}=[A,B]")


def _with_recipe(argv: Sequence[str]) -> list[str]:
    """The arguments with recipes by their path, once nothing stands before --config that it would silently change."""
    found: list[str] = []
    words = list(argv)
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--config" and equals:
            found += ["--config", _resolved(value)]
        elif at and words[at - 1] == "--config":
            found.append(_resolved(word))
        else:
            found.append(word)
    last = max((at for at, word in enumerate(found) if word == "--config"), default=0)
    early = [word for word in found[:last] if word.startswith("--") and not word.startswith(_HARMLESS)]
    if early:
        raise OptionError(
            f"{early[0]} stands before --config, which may change it again: put --config first, its changes after it"
        )
    return found


_HARMLESS = ("--config", "--print_config", "--help")


def _resolved(name: str) -> str:
    known = recipes()
    if not name or name.startswith("--"):
        raise OptionError(f"--config names no file: give one, or a recipe ({', '.join(known)})")
    if Path(name).expanduser().exists() or name not in known:
        if "/" not in name and not Path(name).exists():
            raise OptionError(f"--config {name} is no file, and no recipe: recipes are {', '.join(known)}")
        return name
    return str(known[name])
