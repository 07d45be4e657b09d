"""The designs that tests/benchmarks/designs.py compares: each draws n units of a population with a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from global_frame import Floats, Population, plain_design
from numpy.typing import NDArray

from geofm_sampling import allocate, draw_master, plan_record, respond
from geofm_sampling.draws import draw
from geofm_sampling.hashing import hashed_uniform

Rows = NDArray[np.int64]
FLOOR = 10
LIKE = 0.1
"""Descriptor per standard deviation of a covariate: units 0.3 standard deviations apart, over all covariates, are at
the radius of look-alikes, 0.03 (geofm_sampling.similarity)."""
SEEN = pa.list_(pa.float32())


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Drawn rows of a population, with probabilities where the design has them."""

    rows: Rows
    pi1: Floats | None = None
    pi2: Floats | None = None
    group: Rows | None = None
    """Group of each row for the variance."""
    records: list[dict[str, int | float]] | None = None
    """PHASES records of the groups."""
    local: bool = True
    """Whether the sample is spread along the curve."""

    @property
    def weight(self) -> Floats:
        """1/π, or 1."""
        return np.ones(self.rows.size) if self.pi1 is None or self.pi2 is None else 1.0 / (self.pi1 * self.pi2)


Method = Callable[[Population, int, int], Sample]
"""Draws from a population, n, seed."""


def simple_random(population: Population, n: int, seed: int) -> Sample:
    """Every set of n units equally probable."""
    size = population.unit.size
    rows = draw(np.full(size, n / size), method="random", seed=seed, purpose="simple", ids=population.unit)
    return _one_phase(population, rows, np.full(n, n / size), np.zeros(n, dtype=np.int64), local=False)


def stratified(**fields: object) -> Method:
    """The project's own first phase: allocation, master draw along the Hilbert curve, first ranks."""

    def method(population: Population, n: int, seed: int) -> Sample:
        plan = draw_master(population.frame, plain_design(n, seed=seed, **fields))
        chosen = plan.filter(plan["first_look"])
        rows = np.searchsorted(population.unit, chosen["unit"].to_numpy())
        return _one_phase(population, rows, chosen["pi1"].to_numpy(), population.stratum[rows])

    return method


def two_phases(**fields: object) -> Method:
    """The whole project: 2n units looked at, all observable, n drawn by what overviews, here the maps, tell."""

    def method(population: Population, n: int, seed: int) -> Sample:
        design = plain_design(n, seed=seed, first_phase=2.0, information=True, **fields)
        plan = draw_master(population.frame, design)
        found = respond(plan, population.frame, design, _look(population), inform=_inform(population)).table
        record, drawn = (
            plan_record(plan),
            found.filter(pa.array(found["state"].to_numpy(zero_copy_only=False) == "drawn")),
        )
        counts = [np.bincount(table["stratum"].to_numpy(), minlength=len(record.names)) for table in (found, drawn)]
        rows = np.searchsorted(population.unit, drawn["unit"].to_numpy())
        return Sample(
            rows=rows,
            pi1=drawn["pi1"].to_numpy(),
            pi2=drawn["pi2_given_phase1"].to_numpy(),
            group=drawn["stratum"].to_numpy().astype(np.int64),
            records=_records(record.frame_units, *counts),
        )

    return method


def local_pivotal(population: Population, n: int, seed: int) -> Sample:
    """Power ½ with floor, drawn in each stratum by the local pivotal method on place and covariates."""
    counts = allocate(population.sizes, n, power=0.5, floor=FLOOR)
    space = np.concatenate([population.xyz / population.xyz.std(axis=0).mean(), population.covariates[:, :8]], axis=1)
    picks = []
    for h, count in enumerate(counts.tolist()):
        rows = np.flatnonzero(population.stratum == h)
        pi = np.full(rows.size, count / rows.size)
        ids = population.unit[rows]
        picks.append(rows[draw(pi, method="local", seed=seed, purpose=f"local/{h}", ids=ids, coordinates=space[rows])])
    rows = np.concatenate(picks)
    pi1 = (counts / population.sizes)[population.stratum[rows]]
    return _one_phase(population, rows, pi1, population.stratum[rows])


def nearest_to_centroids(population: Population, n: int, seed: int) -> Sample:
    """k-means with n clusters on the covariates, the unit nearest to each centroid: no inclusion probabilities."""
    rng = np.random.default_rng(seed)
    points = population.covariates.astype(np.float32)
    some = points[rng.choice(len(points), min(len(points), 20_000), replace=False)]
    centres = some[rng.choice(len(some), n, replace=False)]
    for _ in range(4):
        label = _nearest(some, centres)[0]
        count = np.bincount(label, minlength=n)
        sums = np.stack([np.bincount(label, weights=column, minlength=n) for column in some.T], axis=1)
        centres = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres).astype(np.float32)
    label, apart = _nearest(points, centres)
    order = np.lexsort((apart, label))
    return Sample(rows=np.sort(order[np.unique(label[order], return_index=True)[1]]))


def top_of_classes(population: Population, n: int, seed: int) -> Sample:
    """The units with the largest share of each land-cover class, equally many per class: no inclusion probabilities."""
    lots = hashed_uniform(seed, "ties", population.unit)
    taken, classes = np.zeros(lots.size, dtype=bool), population.shares.shape[1]
    for number, share in enumerate(population.shares.T):
        quota = (n * (number + 1)) // classes - int(taken.sum())
        order = np.lexsort((lots, -np.where(taken, -1.0, share)))
        taken[order[:quota]] = True
    return Sample(rows=np.flatnonzero(taken))


def highest_score(population: Population, n: int, seed: int) -> Sample:
    """The n units with the largest surrogate score: no inclusion probabilities."""
    order = np.lexsort((hashed_uniform(seed, "ties", population.unit), -population.score))
    return Sample(rows=np.sort(order[:n]))


DESIGNS: dict[str, Method] = {
    "simple random": simple_random,
    "proportional, at least 1, pivotal": stratified(allocation="proportional", floor=1),
    "equal allocation": stratified(allocation="equal", floor=0),
    "power ½ + floor": stratified(floor=FLOOR),
    "**power ½ + floor + information**": two_phases(floor=FLOOR),
    "… without S_h in the allocation": two_phases(floor=FLOOR, spread=False),
    "… score πps, pivotal, without S_h": two_phases(floor=FLOOR, spread=False, entropy=1.0, draw="pivotal"),
    "power ½ + floor, local pivotal": local_pivotal,
    "k-means, nearest to centroid (no π)": nearest_to_centroids,
    "top-K per class (no π)": top_of_classes,
    "highest score (no π)": highest_score,
}
FEW = {"power ½ + floor, local pivotal": 60, "k-means, nearest to centroid (no π)": 20}
"""Redraws at most of designs that cost much: the error of k-means is bias, which few redraws show."""


def _one_phase(population: Population, rows: Rows, pi: Floats, group: Rows, *, local: bool = True) -> Sample:
    number = int(group.max()) + 1
    frame = np.array([population.unit.size]) if number == 1 else population.sizes
    drawn = np.bincount(group, minlength=frame.size)
    records = _records(frame, drawn, drawn)
    return Sample(rows=rows, pi1=pi, pi2=np.ones(rows.size), group=group, records=records, local=local)


def _records(frame: Rows, looked: Rows, drawn: Rows) -> list[dict[str, int | float]]:
    return [
        {
            **{"wave": 1, "split": 0, "stratum": h, "frame": int(frame[h]), "looked": int(looked[h])},
            **{"observable": int(looked[h]), "drawn": int(drawn[h]), "written": int(drawn[h]), "lambda": 1.0},
        }
        for h in np.flatnonzero(frame).tolist()
    ]


def _look(population: Population) -> Callable[[NDArray[np.uint64]], pa.Table]:
    """One clear granule for every unit: nothing is known of clouds here."""
    start = population.frame["season_start"].to_numpy()

    def look(units: NDArray[np.uint64]) -> pa.Table:
        clear = np.ones(units.size, dtype=np.float32)
        days = start[np.searchsorted(population.unit, units)]
        names = pa.array([f"g{unit}" for unit in units.tolist()])
        return pa.table({"unit": units, "granule_id": names, "date": days, "covered": clear, "clear": clear})

    return look


def _inform(population: Population) -> Callable[[NDArray[np.uint64], pa.Array], pa.Table]:
    """The surrogate score as entropy, a tenth of the standardised covariates as descriptor."""

    def inform(units: NDArray[np.uint64], granules: pa.Array) -> pa.Table:
        rows = np.searchsorted(population.unit, units)
        descriptor = LIKE * population.covariates[rows]
        return pa.table(
            {
                "unit": units,
                "entropy": population.score[rows].astype(np.float32),
                "descriptor": pa.array(descriptor.astype(np.float32).tolist(), SEEN),
            }
        )

    return inform


def _nearest(points: NDArray[np.float32], centres: NDArray[np.float32]) -> tuple[Rows, Floats]:
    """Nearest centre of each point and its squared distance less the point's norm, by matrix products."""
    half = (centres**2).sum(axis=1) / 2
    label, apart = np.empty(len(points), dtype=np.int64), np.empty(len(points))
    for start in range(0, len(points), 4096):
        part = points[start : start + 4096]
        score = half - part @ centres.T
        label[start : start + 4096] = score.argmin(axis=1)
        apart[start : start + 4096] = 2 * score.min(axis=1) + (part**2).sum(axis=1)
    return label, apart
