"""Names of land-cover classes: WorldCover, IO LULC, or what the file itself says.

A legend gives strata their names and merges classes of the same group (WorldCover's two wetlands); it never drops a
class. A wrong legend would only misname strata, so a guess by codes is allowed where it is safe, and said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from geofm_pipeline.errors import InputError
from geofm_sampling.covariates import WORLDCOVER_GROUPS, land_cover_codes

IO_LULC_GROUPS: Mapping[int, str] = {
    1: "water",
    2: "tree",
    4: "wetland",  # flooded vegetation
    5: "crop",
    7: "built",
    8: "bare",
    9: "snow_ice",
    10: "cloud",  # no information under persistent cloud; a group of its own, so that the ground stays in the frame
    11: "grass",  # rangeland: grass and scrub, which the map does not tell apart
}
"""Classes of the Impact Observatory annual land cover, 9 classes (Karra et al. 2021, v2), and their groups."""
GUESS_CODES = 5
"""Distinct codes of IO LULC, all among its own, that name it when nothing else does."""
SURE_CODES = 4
"""Distinct codes of WorldCover, all among its own, below which another map may well have them too."""
_KNOWN: Mapping[str, Mapping[int, str]] = {"worldcover": WORLDCOVER_GROUPS, "io-lulc": IO_LULC_GROUPS, "none": {}}
_TITLES = {"worldcover": "ESA WorldCover", "io-lulc": "IO LULC", "none": "none"}
_IO_FILE = re.compile(
    r"\d{2}[C-X]_20\d{2}(?:\d{4}-20\d{6})?\b|io[-_]?lulc|lulc.*(impact|esri)|esri.*lulc", re.IGNORECASE
)
_METADATA = b"geofm_legend"


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What the codes of a map mean."""

    title: str
    """`ESA WorldCover`, `IO LULC`, `names in the file` or `none`."""
    groups: Mapping[int, str]
    """Class code → land-cover group; a code without one becomes `class_<code>`."""
    why: str
    """What it was recognised by."""
    guessed: bool = False
    """Recognised by the codes alone, which another map might have too."""

    @property
    def note(self) -> str:
        """One sentence for the report where it was guessed, else ''."""
        if not self.guessed:
            return ""
        remedy = "--land-cover-legend none names them by their codes"
        return f"land-cover classes are named as {self.title} has them, {self.why}; {remedy}"


def resolve_legend(
    codes: Collection[int], *, source: str, names: Mapping[int, str], asked: str | None = None
) -> Legend:
    """Legend of a map that has these codes in the region.

    The order: what was asked for; the file name; the names in the file; codes that are all WorldCover's; at least
    five codes that are all IO LULC's, water (1), trees (2) and rangeland (11) among them; no names at all.

    Raises
    ------
    InputError
        When the legend asked for is unknown or lacks a code of the map.
    """
    found = set(codes)
    if asked is not None:
        return _asked(found, asked, source)
    stem = PurePosixPath(source.rstrip("/")).name
    if "worldcover" in stem.lower() and found <= set(WORLDCOVER_GROUPS):
        return Legend(title=_TITLES["worldcover"], groups=WORLDCOVER_GROUPS, why="by its name")
    if _IO_FILE.search(stem) and found <= set(IO_LULC_GROUPS):
        return Legend(title=_TITLES["io-lulc"], groups=IO_LULC_GROUPS, why="by its name")
    if found <= set(WORLDCOVER_GROUPS) and _agree(names):
        few = len(found) < SURE_CODES and not names
        why = f"because its codes {', '.join(map(str, sorted(found)))} are all WorldCover's" if few else "by its codes"
        return Legend(title=_TITLES["worldcover"], groups=WORLDCOVER_GROUPS, why=why, guessed=few)
    if found and found <= set(names):
        groups = {code: _slug(names[code], code) for code in sorted(found)}
        return Legend(title="names in the file", groups=groups, why="the file names its classes")
    if len(found) >= GUESS_CODES and found <= set(IO_LULC_GROUPS) and {1, 2, 11} <= found:
        why = f"because its codes {', '.join(map(str, sorted(found)))} are all IO LULC's"
        return Legend(title=_TITLES["io-lulc"], groups=IO_LULC_GROUPS, why=why, guessed=True)
    return Legend(title="none", groups={}, why="no legend is known for these codes")


def with_legend(cells: pa.Table, legend: Legend) -> pa.Table:
    """Cells whose schema metadata hold the legend."""
    record = {"title": legend.title, "why": legend.why, "groups": {str(c): g for c, g in legend.groups.items()}}
    metadata = {**(cells.schema.metadata or {}), _METADATA: json.dumps(record, sort_keys=True).encode()}
    return cells.replace_schema_metadata(metadata)


def land_cover_names(cells: pa.Table) -> dict[int, str]:
    """Land-cover group of each class code of cells: of their legend, else of WorldCover if all codes are its own."""
    metadata: dict[bytes, bytes] = cells.schema.metadata or {}
    if _METADATA in metadata:
        return {int(code): str(group) for code, group in json.loads(metadata[_METADATA])["groups"].items()}
    codes = land_cover_codes(cells)
    return dict(WORLDCOVER_GROUPS) if all(code in WORLDCOVER_GROUPS for code in codes) else {}


def _asked(found: set[int], asked: str, source: str) -> Legend:
    name = asked.strip().lower()
    if name not in _KNOWN:
        raise InputError(f"land-cover legend {asked!r} is not known: name one of {', '.join(_KNOWN)}")
    strange = sorted(found - set(_KNOWN[name])) if name != "none" else []
    if strange:
        raise InputError(
            f"{source} has the codes {', '.join(map(str, strange[:8]))}, which the legend {asked} does not have: name "
            "the right legend or none"
        )
    return Legend(title=_TITLES[name], groups=_KNOWN[name], why="as asked for")


def _agree(names: Mapping[int, str]) -> bool:
    """Whether the names in a file do not contradict WorldCover: GlobeLand30 has 10 for cropland and 20 for forest."""
    own = {code: name.lower() for code, name in names.items() if code in WORLDCOVER_GROUPS}
    return all(_ROOTS[WORLDCOVER_GROUPS[code]] & set(re.findall(r"[a-z]+", name)) for code, name in own.items())


_ROOTS: Mapping[str, set[str]] = {
    "tree": {"tree", "trees", "forest"},
    "shrub": {"shrub", "shrubs", "shrubland"},
    "grass": {"grass", "grassland"},
    "crop": {"crop", "crops", "cropland"},
    "built": {"built", "urban", "artificial"},
    "bare": {"bare", "barren"},
    "snow_ice": {"snow", "ice"},
    "water": {"water"},
    "wetland": {"wetland", "mangrove", "mangroves"},
    "moss": {"moss", "lichen"},
}


def _slug(name: str, code: int) -> str:
    """A class name fit for a stratum's name: lower case, words by underscores, at most 32 characters."""
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))[:32].strip("_") or f"class_{code}"
