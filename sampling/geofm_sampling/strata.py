"""Strata: land-cover group × climate cluster × a user's own classes × local season, fitted once and frozen.

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
from geofm_sampling.collapse import OTHER as OTHER
from geofm_sampling.collapse import Labels, collapse, merge_notes
from geofm_sampling.covariates import (
    ANY,
    UNKNOWN,
    WORLDCOVER_GROUPS,
    dominant_groups,
    land_cover_codes,
    own_classes,
    too_dry_notes,
)
from geofm_sampling.distinct import distinct
from geofm_sampling.seasons import month_names
from geofm_sampling.tables import BY_PREFIX, CELLS
from geofm_sampling.unit import SEASONS, cell_ids

MIN_CELLS = 16
"""Cells below which a class is merged with others."""
LAND_COVER, CLIMATE, SEASON = "land_cover", "climate", "season"
FACTORS = (LAND_COVER, CLIMATE, SEASON)
"""Factors that are always to be had; further ones are `by_<name>` columns of the cells."""
CellLabels = tuple[list[str], NDArray[np.int16], NDArray[np.int16]]
"""Land-cover groups, each cell's index into them and its climate number."""


@dataclass(frozen=True, kw_only=True)
class Strata:
    """The frozen artefact; equal digests mean equal labels."""

    factors: tuple[str, ...]
    """What strata are made of, in order: `land_cover`, `climate`, `by_<name>`, `season`."""
    groups: tuple[tuple[int, str], ...]
    """(class code, land-cover group), ascending; empty where no land cover was given."""
    climate: Climate
    """Weather statistics, cluster centroids and the season table of each cluster; seasons follow it in any case."""
    collapse: tuple[tuple[Labels, str], ...]
    """(labels by `class_factors`, class that they belong to), for each combination that was met."""
    classes: tuple[str, ...]
    """Names of the classes; the last is `other`."""
    class_climates: tuple[tuple[int, ...], ...]
    """Climate numbers of each class's cells."""
    min_cells: int
    """Cells below which a class was merged."""
    seed: int
    """Seed of the clusters."""
    notes: tuple[str, ...]
    """What was missing or merged, one sentence each, for the report."""

    @property
    def seasonal(self) -> bool:
        """Whether seasons are strata of their own: stratum number = 4 · class + season, else the class."""
        return SEASON in self.factors

    @property
    def class_factors(self) -> tuple[str, ...]:
        """Factors that tell classes apart: those given, but for the season."""
        absent = {SEASON, *([] if self.groups else [LAND_COVER]), *([] if self.climate.statistics else [CLIMATE])}
        return tuple(factor for factor in self.factors if factor not in absent)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each stratum by number, such as `tree/c3/s2`, or `tree/c3` where seasons are pooled."""
        if not self.seasonal:
            return self.classes
        return tuple(f"{name}/s{season}" for name in self.classes for season in range(SEASONS))

    def climates_of(self, name: str) -> tuple[int, ...]:
        """Climate numbers of a class, ascending; none for a class that was not met."""
        return self.class_climates[self.classes.index(name)] if name in self.classes else ()

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
    factors: Sequence[str] = FACTORS,
    clusters: int = 6,
    seed: int,
    min_cells: int = MIN_CELLS,
    groups: Mapping[int, str] = WORLDCOVER_GROUPS,
) -> Strata:
    """Fit the artefact on a CELLS table.

    Parameters
    ----------
    factors : what strata are made of: any of FACTORS and of the cells' `by_<name>` text columns, in the order of the
        parts of a class's name; without `season` the seasons of a class are one stratum
    clusters : climate clusters wanted, 1 to 99; fewer where the weather differs too little
    min_cells : classes with fewer cells are merged: over the last factor first (`tree/rest`), and into `other` where
        those together are still too few
    groups : land-cover class code → group; another code becomes the group `class_<code>`

    Raises
    ------
    ValueError
        When there are no cells, a factor is unknown, or covariates are incomplete or impossible.
    """
    CELLS.check(cells)
    if cells.num_rows == 0:
        raise ValueError("there are no cells to stratify: the catalogue's tiles own no ground of the region")
    if not 1 <= clusters <= 99:
        raise ValueError(f"{clusters} climate clusters: must be 1 to 99")
    _check_factors(factors, cells)
    # Any chip size names the cells uniquely here: the ids only have to hash the same whatever the order of rows.
    ids = cell_ids(cells["tile"], chip_size=64, cell_row=cells["cell_row"], cell_col=cells["cell_col"])
    draft = Strata(
        factors=tuple(factors),
        groups=tuple((code, groups.get(code, f"class_{code}")) for code in land_cover_codes(cells)),
        climate=fit_climate(cells, ids, clusters, seed=seed),
        collapse=(),
        classes=(OTHER,),
        class_climates=((),),
        min_cells=min_cells,
        seed=seed,
        notes=(),
    )
    return _with_classes(draft, cells, clusters)


def cell_labels(cells: pa.Table, strata: Strata) -> CellLabels:
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


def stratum_of_cells(cells: pa.Table, strata: Strata, labels: CellLabels | None = None) -> NDArray[np.int32]:
    """Class of each cell, an index into `strata.classes`, shape (n,); what the fit never met is `other`.

    `labels` are the cells' :func:`cell_labels` where they are known already.

    Raises
    ------
    ValueError
        When the artefact was fitted with a covariate that the cells do not have.
    """
    met, inverse = _combinations(cells, strata, labels or cell_labels(cells, strata))
    known = dict(strata.collapse)
    place = {name: index for index, name in enumerate(strata.classes)}
    return np.array([place[known.get(combination, OTHER)] for combination in met], dtype=np.int32)[inverse]


def _check_factors(factors: Sequence[str], cells: pa.Table) -> None:
    own = [name for name in cells.column_names if name.startswith(BY_PREFIX)]
    for factor in factors:
        if factor not in (*FACTORS, *own):
            raise ValueError(
                f"{factor!r} is no factor of strata: give any of {', '.join((*FACTORS, *own))}"
                f"{'' if own else f', or a text column {BY_PREFIX}<name> of the cells'}"
            )
    if len(set(factors)) < len(factors):
        raise ValueError(f"the factors of strata {', '.join(factors)} name one twice")


def _combinations(cells: pa.Table, strata: Strata, labels: CellLabels) -> tuple[list[Labels], NDArray[np.int64]]:
    """The combinations of labels by `class_factors` that the cells have, and each cell's index into them, (n,)."""
    combinations: list[Labels] = [()]
    index = np.zeros(cells.num_rows, dtype=np.int64)
    for factor in strata.class_factors:
        names, label = _factor_labels(cells, strata, factor, labels)
        # Only combinations that occur are kept, so that many classes of many factors stay few numbers.
        codes, index = distinct(index * len(names) + label, len(combinations) * len(names))
        combinations = [(*combinations[code // len(names)], names[code % len(names)]) for code in codes.tolist()]
    return combinations, index


def _factor_labels(
    cells: pa.Table, strata: Strata, factor: str, labels: CellLabels
) -> tuple[list[str], NDArray[np.integer]]:
    """Labels of a factor and each cell's index into them, shape (n,)."""
    groups, group, climate = labels
    if factor == LAND_COVER:
        return groups, group
    if factor == CLIMATE:
        unknown = strata.climate.unknown
        return [f"c{number}" for number in range(unknown)] + ["c?"], climate
    return own_classes(cells, factor)


def _with_classes(draft: Strata, cells: pa.Table, clusters: int) -> Strata:
    """The artefact completed with its classes and notes, from the number of cells of each combination."""
    labels = cell_labels(cells, draft)
    met, index = _combinations(cells, draft, labels)
    sizes = dict(zip(met, np.bincount(index, minlength=len(met)).tolist(), strict=True))
    table = collapse(sizes, draft.min_cells)
    classes = (*sorted(set(table.values()) - {OTHER}), OTHER)
    place = {name: k for k, name in enumerate(classes)}
    kinds = len(draft.climate.season_starts)
    of_cell = np.array([place[table[combination]] for combination in met], dtype=np.int64)[index]
    climates: list[list[int]] = [[] for _ in classes]
    for pair in distinct(of_cell * kinds + labels[2], len(classes) * kinds)[0].tolist():
        climates[pair // kinds].append(pair % kinds)
    return replace(
        draft,
        collapse=tuple(table.items()),
        classes=classes,
        class_climates=tuple(map(tuple, climates)),
        notes=(
            *_input_notes(draft, sizes, clusters),
            *too_dry_notes(cells),
            *merge_notes(table, sizes, draft.min_cells),
        ),
    )


def _input_notes(draft: Strata, sizes: Mapping[Labels, int], clusters: int) -> list[str]:
    notes = []
    if LAND_COVER in draft.factors and not draft.groups:
        notes.append("No land cover was given: strata know no land-cover groups.")
    if not draft.climate.statistics:
        lost = "strata know no climate, seasons" if CLIMATE in draft.factors else "seasons"
        notes.append(f"No weather was given: {lost} are calendar quarters from December.")
    elif CLIMATE in draft.factors and len(draft.climate.centroids) < clusters:
        found = len(draft.climate.centroids)
        notes.append(f"The weather differs too little for {clusters} climate clusters: {found} used.")
    for place, factor in enumerate(draft.class_factors):
        number = sum(size for labels, size in sizes.items() if labels[place] in (UNKNOWN, "c?"))
        if number:
            what = {LAND_COVER: "land cover", CLIMATE: "weather"}.get(factor, factor.removeprefix(BY_PREFIX))
            notes.append(
                f"The {what} of {number} of {sum(sizes.values())} cells is unknown; they form classes of their own."
            )
    return notes


def _with_tuples(record: dict[str, Any]) -> dict[str, Any]:
    """A JSON record whose lists are tuples, at every depth."""

    def frozen(value: Any) -> Any:
        return tuple(frozen(item) for item in value) if isinstance(value, list) else value

    return {key: frozen(value) for key, value in record.items()}
