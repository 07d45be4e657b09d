"""Outlines of countries, states and continents by name, from Natural Earth 1:10 m (public domain) through cartopy.

The only cartopy user. The first use downloads two archives (5 and 15 MB) into a cache; later ones need no network.
A mirror can be set with cartopy's own `config["downloaders"]`, and `CARTOPY_DATA_DIR` names a folder of files that
were fetched beforehand.
"""

from __future__ import annotations

import difflib
import http.client
import io
import re
import shutil
import tempfile
import unicodedata
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cartopy
import geopandas as gpd
import numpy as np
import pandas as pd
from cartopy.io import Downloader
from cartopy.io.shapereader import NEShpDownloader
from shapely.geometry import MultiPolygon

from geofm_pipeline.errors import InputError
from geofm_pipeline.lonlat import union, wrapped

COUNTRIES = "admin_0_countries"
STATES = "admin_1_states_provinces"
_RESOLUTION = "10m"
_TIMEOUT_S = 60
_COUNTRY_NAMES = ("ADMIN", "NAME", "NAME_LONG", "NAME_EN", "FORMAL_EN")
_COUNTRY_CODES = ("ISO_A2", "ISO_A2_EH", "ISO_A3", "ISO_A3_EH", "ADM0_A3")  # _EH: filled where ISO_A2 is -99 (Norway)
_STATE_NAMES = ("NAME", "NAME_EN", "ISO_3166_2")
_SUGGESTIONS = 5


@dataclass(frozen=True, kw_only=True)
class Place:
    """A named outline."""

    name: str
    """The unambiguous form, e.g. `Georgia (country)` or `Georgia, United States of America`."""
    geometry: MultiPolygon


@dataclass(frozen=True, kw_only=True)
class _Entry:
    kind: str  # country, state or continent
    name: str
    country: str  # '' for a continent
    keys: frozenset[str]  # folded names and codes
    rows: tuple[int, ...]

    @property
    def qualified(self) -> str:
        return f"{self.name}, {self.country}" if self.kind == "state" else f"{self.name} ({self.kind})"


def find_place(text: str, *, cache: Path | None = None) -> Place:
    """The place that a text names, without regard to case and accents; codes such as `NO`, `NOR` or `US-CA` serve too.

    A country wins over a province of its own with the same name (Mexico); any other tie is an error.

    Raises
    ------
    InputError
        When no place or several places have the name (the message lists near or qualified names), or when the
        outlines are neither cached nor to be had from the network.
    """
    countries = _table(COUNTRIES, cache)
    entries = _countries(countries) + _continents(countries)
    coded = [entry for entry in entries if entry.kind == "country" and text.strip().upper() in _codes(countries, entry)]
    if coded:
        return _place(coded[0], countries)
    states = _table(STATES, cache)
    entries += _states(states)
    entry = _choose(text, entries)
    return _place(entry, states if entry.kind == "state" else countries)


def fold(text: str) -> str:
    """A name without case, accents and punctuation: `Côte d'Ivoire` → `cote d ivoire`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"[a-z0-9]+", plain.lower()))


def _choose(text: str, entries: Sequence[_Entry]) -> _Entry:
    bare, qualifier = _split_qualifier(text)
    found = [entry for entry in entries if fold(text) in entry.keys]
    if not found and qualifier:
        found = [e for e in entries if fold(bare) in e.keys and _qualifies(e, qualifier, entries)]
    countries = {entry.name for entry in found if entry.kind == "country"}
    found = [entry for entry in found if entry.kind != "state" or entry.country not in countries]
    if len(found) > 1 and any(entry.kind == "country" for entry in found):
        found = [entry for entry in found if entry.kind != "continent"]  # Antarctica is both, with one outline
    if len(found) == 1:
        return found[0]
    if found:
        forms = "; ".join(f"'{entry.qualified}'" for entry in found)
        raise InputError(f"region {text!r} names {len(found)} places: write one of {forms}, or give a bbox or a file")
    raise InputError(
        f"region {text!r} is no bbox W,S,E,N, no file, no MGRS tile id and no country, state or continent of "
        f"Natural Earth{_suggestion(text, entries)}"
    )


def _split_qualifier(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+?)\s*\(([^()]+)\)\s*", text) or re.fullmatch(r"(.+),([^,]+)", text)
    return (match[1], fold(match[2])) if match else (text, "")


def _qualifies(entry: _Entry, qualifier: str, entries: Sequence[_Entry]) -> bool:
    if entry.kind != "state":
        return qualifier == entry.kind
    homes = {fold(other.name) for other in entries if other.kind == "country" and qualifier in other.keys}
    return qualifier in {"state", "province", fold(entry.country)} or fold(entry.country) in homes


def _suggestion(text: str, entries: Sequence[_Entry]) -> str:
    names = {key: entry.qualified if entry.kind == "state" else entry.name for entry in entries for key in entry.keys}
    near = difflib.get_close_matches(fold(text), [key for key in names if len(key) > 3], n=_SUGGESTIONS, cutoff=0.75)
    chosen = list(dict.fromkeys(names[key] for key in near))
    return f"; did you mean {' or '.join(chosen)}?" if chosen else "; check the spelling, or give a bbox or a file"


def _place(entry: _Entry, table: gpd.GeoDataFrame) -> Place:
    outlines = np.asarray(table.geometry, dtype=object)[list(entry.rows)]
    outline = union([wrapped(geometry) for geometry in outlines])
    return Place(name=entry.qualified if entry.kind == "state" else entry.name, geometry=outline)


def _countries(table: gpd.GeoDataFrame) -> list[_Entry]:
    return [
        _Entry(
            kind="country",
            name=str(row["ADMIN"]),
            country=str(row["ADMIN"]),
            keys=_keys(row, (*_COUNTRY_NAMES, *_COUNTRY_CODES)),
            rows=(number,),
        )
        for number, row in enumerate(_rows(table))
    ]


def _continents(table: gpd.GeoDataFrame) -> list[_Entry]:
    members: dict[str, list[int]] = {}
    for number, row in enumerate(_rows(table)):
        members.setdefault(str(row.get("CONTINENT", "")), []).append(number)
    return [
        _Entry(kind="continent", name=name, country="", keys=frozenset({fold(name)}), rows=tuple(rows))
        for name, rows in members.items()
        if name
    ]


def _states(table: gpd.GeoDataFrame) -> list[_Entry]:
    return [
        _Entry(
            kind="state",
            name=str(row["NAME"]),
            country=str(row["ADMIN"]),
            keys=_keys(row, _STATE_NAMES),
            rows=(number,),
        )
        for number, row in enumerate(_rows(table))
        if row.get("NAME")
    ]


def _codes(table: gpd.GeoDataFrame, entry: _Entry) -> set[str]:
    row = table.iloc[entry.rows[0]]
    return {str(row[column]) for column in _COUNTRY_CODES if column in table.columns} - {"-99", "None", ""}


def _keys(row: dict[str, object], columns: Iterable[str]) -> frozenset[str]:
    values = (row.get(column) for column in columns)
    return frozenset(fold(str(value)) for value in values if value and str(value) != "-99") - {""}


def _rows(table: gpd.GeoDataFrame) -> list[dict[str, object]]:
    plain = pd.DataFrame(table.drop(columns=table.geometry.name))
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def _table(name: str, cache: Path | None) -> gpd.GeoDataFrame:
    table = gpd.read_file(_shapefile(name, cache))
    return table.rename(columns={column: column.upper() for column in table.columns if column != table.geometry.name})


def _shapefile(name: str, cache: Path | None) -> Path:
    configured = Downloader.from_config(("shapefiles", "natural_earth", _RESOLUTION, "cultural", name))
    loader = _PatientDownloader(
        configured.url_template, configured.target_path_template, configured.pre_downloaded_path_template
    )
    config = {**cartopy.config, **({"data_dir": cache} if cache is not None else {})}
    fields = {"config": config, "resolution": _RESOLUTION, "category": "cultural", "name": name}
    try:
        return Path(loader.path(fields))
    except (OSError, http.client.HTTPException, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"place names need the outlines of Natural Earth, and {loader.url(fields)} could not be had ({error}); "
            f"they are kept in {loader.target_path(fields).parent} once loaded. Without a network give the region as "
            f"a bbox W,S,E,N, a vector file or MGRS tile ids, or put the unpacked shapefile into that folder"
        ) from error


class _PatientDownloader(NEShpDownloader):  # type: ignore[misc]  # cartopy publishes no types
    """Cartopy's downloader with a time limit, and without half a file in the cache when it is interrupted."""

    def _urlopen(self, url: str) -> io.BytesIO:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
                return io.BytesIO(response.read())
        except urllib.error.HTTPError as error:
            error.close()
            raise

    def acquire_resource(self, target_path: str | Path, format_dict: dict[str, object]) -> Path:
        target = Path(target_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            super().acquire_resource(Path(folder) / target.name, format_dict)
            files = sorted(Path(folder).iterdir(), key=lambda file: file.suffix == ".shp")
            for file in files:  # the .shp last: its presence is what counts as cached
                shutil.move(str(file), target.parent / file.name)
        return target
