"""Strata: land-cover group × climate cluster × local season, fitted once and frozen.

The artefact holds everything that decides which stratum a unit is in, so that an extension of a sample to more
years or ground labels old and new units alike. Fitting reads the covariates of all cells once; the result depends
neither on the order of rows nor on how the cells are partitioned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.climate import Climate, climate_numbers, fit_climate
from geofm_sampling.covariates import ANY, UNKNOWN, WORLDCOVER_GROUPS, dominant_groups, land_cover_codes
from geofm_sampling.seasons import month_names
from geofm_sampling.tables import CELLS
from geofm_sampling.unit import SEASONS, cell_ids

MIN_CELLS = 16
"""Cells below which a land-cover × climate class is merged with others."""
OTHER = "other"
"""Name of the class of everything rare, and of whatever an extension meets first."""


@dataclass(frozen=True, kw_only=True)
class Strata:
    """The frozen artefact; equal digests mean equal labels."""

    groups: tuple[tuple[int, str], ...]
    """(class code, land-cover group), ascending; empty where no land cover was given."""
    climate: Climate
    """Weather statistics, cluster centroids and the season table of each cluster."""
    collapse: tuple[tuple[str, int, str], ...]
    """(land-cover group, climate number, class that it belongs to)."""
    classes: tuple[str, ...]
    """Names of the classes; the last is `other`. Stratum number = 4 · index + season."""
    min_cells: int
    """Cells below which a class was merged."""
    seed: int
    """Seed of the clusters."""
    notes: tuple[str, ...]
    """What was missing or merged, one sentence each, for the report."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each stratum by number, such as `tree/c3/s2`."""
        return tuple(f"{name}/s{season}" for name in self.classes for season in range(SEASONS))

    def season_span(self, *, climate: int, south: bool, season: int) -> str:
        """Months of a local season as text, e.g. `Jun-Aug`."""
        return month_names(self.climate.season_starts[climate][int(south)], season)

    def to_json(self) -> str:
        """Canonical JSON, sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Strata:
        """Inverse of :meth:`to_json`."""
        values = json.loads(text, object_hook=_with_tuples)
        return cls(**{**values, "climate": Climate(**values["climate"])})

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def fit_strata(
    cells: pa.Table,
    *,
    clusters: int = 6,
    seed: int,
    min_cells: int = MIN_CELLS,
    groups: Mapping[int, str] = WORLDCOVER_GROUPS,
) -> Strata:
    """Fit the artefact on a CELLS table.

    Parameters
    ----------
    clusters : climate clusters wanted, 1 to 99; fewer where the weather differs too little
    min_cells : classes with fewer cells are merged: the rare climates of a land-cover group into `group/rest`,
        and into `other` where those together are still too few
    groups : land-cover class code → group; another code becomes the group `class_<code>`

    Raises
    ------
    ValueError
        When there are no cells, or covariates are incomplete or impossible.
    """
    CELLS.check(cells)
    if cells.num_rows == 0:
        raise ValueError("there are no cells to stratify: the catalogue's tiles own no ground of the region")
    if not 1 <= clusters <= 99:
        raise ValueError(f"{clusters} climate clusters: must be 1 to 99")
    # Any chip size names the cells uniquely here: the ids only have to hash the same whatever the order of rows.
    ids = cell_ids(cells["tile"], chip_size=64, cell_row=cells["cell_row"], cell_col=cells["cell_col"])
    draft = Strata(
        groups=tuple((code, groups.get(code, f"class_{code}")) for code in land_cover_codes(cells)),
        climate=fit_climate(cells, ids, clusters, seed=seed),
        collapse=(),
        classes=(OTHER,),
        min_cells=min_cells,
        seed=seed,
        notes=(),
    )
    return _with_classes(draft, cells, clusters)


def cell_labels(cells: pa.Table, strata: Strata) -> tuple[list[str], NDArray[np.int16], NDArray[np.int16]]:
    """Land-cover groups, each cell's index into them and its climate number, both shape (n,).

    Raises
    ------
    ValueError
        When the artefact was fitted with a covariate that the cells do not have.
    """
    climate = climate_numbers(cells, strata.climate)
    if not strata.groups:
        return [ANY], np.zeros(cells.num_rows, dtype=np.int16), climate
    if not land_cover_codes(cells):
        raise ValueError("these strata were fitted with land cover, but the cells have no lc_ columns: give the map")
    return *dominant_groups(cells, dict(strata.groups)), climate


def class_table(strata: Strata, groups: Sequence[str]) -> NDArray[np.int32]:
    """Class index by (group index, climate number), shape (G, C); what the fit never met is `other`."""
    shape = (len(groups), len(strata.climate.season_starts))
    table = np.full(shape, len(strata.classes) - 1, dtype=np.int32)
    for group, climate, name in strata.collapse:
        if group in groups:
            table[groups.index(group), climate] = strata.classes.index(name)
    return table


def _with_classes(draft: Strata, cells: pa.Table, clusters: int) -> Strata:
    """The artefact completed with its classes and notes, from the number of cells of each combination."""
    groups, group, climate = cell_labels(cells, draft)
    kinds = len(draft.climate.season_starts)
    count = np.bincount(group.astype(np.int64) * kinds + climate, minlength=len(groups) * kinds)
    sizes = {(groups[i // kinds], i % kinds): int(n) for i, n in enumerate(count) if n}
    collapse = _collapse(sizes, draft)
    classes = sorted({name for _, _, name in collapse} - {OTHER})
    notes = [*_input_notes(draft, sizes, clusters), *_merge_notes(collapse, sizes, draft)]
    return replace(draft, collapse=tuple(collapse), classes=(*classes, OTHER), notes=tuple(notes))


def _collapse(sizes: Mapping[tuple[str, int], int], draft: Strata) -> list[tuple[str, int, str]]:
    """The collapse table, sorted: large classes keep their own name, rare ones are pooled over climate, then all."""
    rare: dict[str, int] = {}
    for (group, _), size in sizes.items():
        rare[group] = rare.get(group, 0) + size * (size < draft.min_cells)
    table = []
    for group, climate in sorted(sizes):
        if sizes[group, climate] >= draft.min_cells or len(sizes) == 1:
            name = _class_name(group, climate, draft)
        else:
            name = f"{group}/rest" if draft.climate.statistics and rare[group] >= draft.min_cells else OTHER
        table.append((group, climate, name))
    return table


def _class_name(group: str, climate: int, draft: Strata) -> str:
    parts = [group] if draft.groups else []
    if draft.climate.statistics:
        parts.append("c?" if climate == draft.climate.unknown else f"c{climate}")
    return "/".join(parts) or "all"


def _input_notes(draft: Strata, sizes: Mapping[tuple[str, int], int], clusters: int) -> list[str]:
    notes = []
    if not draft.groups:
        notes.append("No land cover was given: strata know no land-cover groups.")
    if not draft.climate.statistics:
        notes.append("No weather was given: strata know no climate, seasons are calendar quarters from December.")
    elif len(draft.climate.centroids) < clusters:
        found = len(draft.climate.centroids)
        notes.append(f"The weather differs too little for {clusters} climate clusters: {found} used.")
    total = sum(sizes.values())
    for what, number in (
        ("land cover", sum(size for (group, _), size in sizes.items() if group == UNKNOWN)),
        ("weather", sum(size for (_, climate), size in sizes.items() if climate == draft.climate.unknown)),
    ):
        if number and not (what == "weather" and not draft.climate.statistics):
            notes.append(f"The {what} of {number} of {total} cells is unknown; they form classes of their own.")
    return notes


def _merge_notes(
    collapse: list[tuple[str, int, str]], sizes: Mapping[tuple[str, int], int], draft: Strata
) -> list[str]:
    """One sentence per pooled class."""
    notes = []
    for pooled in sorted({name for _, _, name in collapse if name == OTHER or name.endswith("/rest")}):
        members = [(group, climate) for group, climate, name in collapse if name == pooled]
        names = ", ".join(_class_name(group, climate, draft) for group, climate in members)
        cells = sum(sizes[member] for member in members)
        notes.append(
            f"Classes with fewer than {draft.min_cells} cells were merged into {pooled}: {names} ({cells} cells)."
        )
    return notes


def _with_tuples(record: dict[str, Any]) -> dict[str, Any]:
    """A JSON record whose lists are tuples, at every depth."""

    def frozen(value: Any) -> Any:
        return tuple(frozen(item) for item in value) if isinstance(value, list) else value

    return {key: frozen(value) for key, value in record.items()}
