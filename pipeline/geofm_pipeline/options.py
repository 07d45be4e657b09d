"""Command-line and YAML options to a configuration: the only jsonargparse user of this distribution.

YAML here has one rule of its own: only `true` and `false` are booleans, so that `region: NO` means Norway.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser
import yaml
from jsonargparse import (
    ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]  # its own documentation imports it from here
    ArgumentError,
    ArgumentParser,
    set_loader,
)

from geofm_pipeline.access.local import local_path
from geofm_pipeline.config import SampleConfig
from geofm_pipeline.errors import InputError
from geofm_pipeline.importing.config import ImportConfig
from geofm_pipeline.importing.quoting import check_quotes, join_numbers
from geofm_pipeline.importing.words import nearest

PROGRAM = "geofm-sample"


def parse_options(argv: Sequence[str]) -> SampleConfig:
    """Options of the main job; later ones win over earlier ones and over --config.

    Raises
    ------
    InputError
        With the option, its value and the rule.
    SystemExit
        After --help or --print_config, as argparse does.
    """
    values = _parsed(main_parser(), SampleConfig, _join_negative_values(argv))
    return SampleConfig(**{**values, **absolute_sources(values)})


def parse_import_options(argv: Sequence[str]) -> ImportConfig:
    """Options of `geofm-sample import`, by the same rules; raises like :func:`parse_options`.

    Paths become absolute, so that a later run elsewhere means the same files.
    """
    check_quotes(argv)
    values = _parsed(import_parser(), ImportConfig, join_numbers(argv))
    for name in ("images", "mask"):
        if values[name] is not None and str(values[name]).strip():
            values[name] = _absolute(str(values[name]))
    return ImportConfig(**values)


def _parsed(parser: ArgumentParser, kind: type, argv: Sequence[str]) -> dict[str, Any]:
    """Values by field of a configuration."""
    try:
        found = parser.parse_args(list(argv))
    except ArgumentError as error:
        raise InputError(f"{_plain(str(error))}{_meant_option(str(error), kind)} (see {parser.prog} --help)") from error
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(kind)}
    for field in dataclasses.fields(kind):
        if field.type == "bool" and not isinstance(values[field.name], bool):
            raise InputError(f"--{field.name.replace('_', '-')} must be true or false, got {values[field.name]}")
    return values


_LISTS = ("weather", "existing")
_SOURCES = ("catalog", "land_cover", *_LISTS)


def absolute_sources(values: Mapping[str, object]) -> dict[str, str]:
    """Options that name local files, with absolute paths: workers and later runs elsewhere mean the same files.

    Words that name a source stay as they are; `./worldcover` is the folder of that name.
    """
    asked = {name: str(values[name]).strip() for name in _SOURCES if values.get(name) is not None}
    words = {name: text.lower() for name, text in asked.items() if text.lower() in _words(name)}
    found = {name: text for name, text in asked.items() if text and name not in words}
    result = words | {name: _absolute(text) for name, text in found.items() if name not in _LISTS}
    for name in set(found) & set(_LISTS):
        whole = Path(found[name]).expanduser()
        parts = [found[name]] if whole.exists() else found[name].split(",")
        result[name] = ",".join(_absolute(part) for part in parts)
    region = str(values["region"])
    if Path(region).expanduser().is_file():
        result["region"] = _absolute(region)
    result["strata"] = ",".join(_absolute_layer(word) for word in str(values["strata"]).split(","))
    return result


def _words(option: str) -> Sequence[str]:
    """What an option takes besides paths and URLs; imported late, since --help needs no raster library."""
    from geofm_pipeline.catalogs.named import NAMES
    from geofm_pipeline.covariates.named_sources import source_names

    if option == "catalog":
        return NAMES
    return source_names("--" + option.replace("_", "-")) if option in ("land_cover", "weather") else ()


def _absolute(source: str) -> str:
    """A local path or glob pattern made absolute; URLs stay."""
    text = source.strip()
    if text[:7].lower() == "file://":
        return str(local_path(text))
    return source if not text or "://" in text else str(Path(text).expanduser().absolute())


def _absolute_layer(word: str) -> str:
    source, colon, attribute = word.strip().rpartition(":")
    return f"{_absolute(source)}:{attribute}" if colon and source else word.strip()


def main_parser() -> ArgumentParser:
    """The parser of the main job, one option per field of SampleConfig."""
    return _parser(
        SampleConfig,
        prog=PROGRAM,
        description="Draw a probability sample of the HLS archive and write it as a verified Zarr training store.",
        epilog="Other commands: geofm-sample login-check, import, verify DIR, report DIR, estimate DIR COLUMN, "
        "simulate OUT (each has --help). Exit codes: docs/cli.md",
    )


def import_parser() -> ArgumentParser:
    """The parser of `geofm-sample import`, one option per field of ImportConfig."""
    return _parser(
        ImportConfig,
        prog=f"{PROGRAM} import",
        description="Write images of your own (GeoTIFFs or what else GDAL reads) as a verified Zarr training store: "
        f"{PROGRAM} import --images 'scenes/{{place}}_{{date}}.tif' --out mine",
        epilog="docs/cli.md has worked examples: stacks of bands, a file per band with cloud masks, tables. "
        "Exit codes are there, too.",
    )


def _parser(kind: type, *, prog: str, description: str, epilog: str) -> ArgumentParser:
    """A parser with one option per field of a configuration, explained by the sentence under it."""
    set_loader("geofm_yaml", _load_yaml, exceptions=(yaml.YAMLError,))
    parser = ArgumentParser(
        prog=prog, description=description, epilog=epilog, exit_on_error=False, parser_mode="geofm_yaml"
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    hints, sentences = get_type_hints(kind), _sentences(kind)
    for field in dataclasses.fields(kind):
        flag, sentence = "--" + field.name.replace("_", "-"), sentences[field.name]
        if field.type == "bool" and field.default is True:
            parser.add_argument(flag, type=bool, default=True, help=f"{sentence} (true or false)")
        elif field.type == "bool":
            parser.add_argument(flag, action="store_true", help=sentence)
        elif field.default is dataclasses.MISSING:
            parser.add_argument(flag, type=hints[field.name], required=True, help=sentence)
        else:
            parser.add_argument(flag, type=hints[field.name], default=field.default, help=sentence)
    return parser


def _sentences(kind: type) -> dict[str, str]:
    doc = docstring_parser.parse_from_object(kind)
    return {p.arg_name: (p.description or "").replace("%", "%%") for p in doc.params}


_KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
_TYPE_ERROR = re.compile(
    r"""Parser key "(\w+)": .*?(?:<class '(\w+)'>|typing\.Literal\[(.*?)\]).*?(?:Got|Given) value: (.*)"""
)


def _plain(message: str) -> str:
    """jsonargparse's message in one line, with the option's own name and without Python's classes."""
    line = " ".join(message.split())
    required = re.match(r"the following arguments are required: (.*)", line)
    if required is not None:
        return f"{' and '.join('--' + name.replace('_', '-') for name in required[1].split(', '))} must be given"
    found = _TYPE_ERROR.match(line)
    if found is None:
        return line
    name, kind, choices, value = found.groups()
    wanted = _KINDS.get(kind, kind) if kind else f"one of {choices.replace(chr(39), '')}"
    return f"--{name.replace('_', '-')} must be {wanted}, got {value}"


def _meant_option(message: str, kind: type) -> str:
    """`; did you mean --chip-size?` behind a message about an option that no field of a configuration has."""
    wrong = re.search(r"unrecognized arguments: --([\w-]+)|Option '(\w+)' is not accepted", message)
    if wrong is None:
        return ""
    names = [field.name.replace("_", "-") for field in dataclasses.fields(kind)]
    near = nearest((wrong[1] or wrong[2]).replace("_", "-"), names)
    return f"; did you mean --{near}?" if near is not None else ""


def _join_negative_values(argv: Sequence[str]) -> list[str]:
    """Write `--region -10,40,5,50` as one word, since argparse takes a leading minus for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--region" and re.match(r"-[\d.]", word):
            joined[-1] = f"--region={word}"
        else:
            joined.append(word)
    return joined


class _Loader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's yes/no/on/off booleans and sexagesimal numbers."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:int"}]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))


def _load_yaml(text: str) -> object:
    return yaml.load(text, Loader=_Loader)  # a SafeLoader subclass: builds plain values only
