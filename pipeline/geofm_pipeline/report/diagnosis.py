"""The diagnostics of a folder, computed once for the page and for card.json; each is None where it has no data.

Training ground only, unless a name says otherwise: held-out ground has a panel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.report.evidence import Evidence, Units, read_evidence
from geofm_pipeline.report.facts import Facts
from geofm_pipeline.report.folder import Folder, column, with_state
from geofm_pipeline.report.ground import TRAINING
from geofm_pipeline.report.precision import Average, averages
from geofm_sampling.balance import Balance, voronoi_balance
from geofm_sampling.diagnostics import deff_weights, effective_strata, near_duplicate_share, rarefaction, repeats
from geofm_sampling.energy import MOST, Cloud, energy_distance, redraw_distances, scaled, standardise
from geofm_sampling.frontier import Point, frontier
from geofm_sampling.selftest import Check, phase1_checks, phase2_checks
from geofm_sampling.similarity import RADIUS
from geofm_sampling.unit import ground_cells

_CURVE = 40
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """Energy distances of covariates, 0 (the same) to 1."""

    lines: Sequence[tuple[str, float, float]]
    """(what, distance to the frame, distance to the declared target)."""
    random_frame: Floats
    """Distances to the frame of simple random samples as large as the chips, ascending."""
    random_target: Floats
    """The same to the target."""
    covariates: int
    """Covariates compared."""
    cut: bool
    """Whether sample or frame were cut down by hash."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SelfTest:
    """Totals that are known against what the unraked weights give back."""

    looked: Sequence[Check]
    """Phase 1: the units looked at against the frame."""
    drawn: Sequence[Check]
    """Phase 2: the drawn units against all observable ones."""
    units: Sequence[str]
    """Unit of each tested variable, by name in `labels`."""
    labels: Sequence[str]
    share: float
    """Share of the frame that takes part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tradeoff:
    """What other exponents of the allocation would have given."""

    points: Sequence[Point]
    power: float
    """The exponent of this dataset."""
    allocation: str
    """Its rule."""
    samples: int
    """Training samples that all waves asked for."""
    waves: int
    """Waves that shared them out, each its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """All diagnostics."""

    strata: int
    """H, strata with training ground in the frame."""
    effective: float | None
    """Effective strata of the written training chips."""
    kish: float | None
    """Kish's factor of the design weights of the written training chips."""
    observable: tuple[float, float] | None
    """Estimated observable share of the training frame and its standard error."""
    looked_balance: Balance | None
    chip_balance: Balance | None
    likeness: Likeness | None
    selftest: SelfTest | None
    tradeoff: Tradeoff | None
    curve: tuple[Sequence[int], Floats] | None
    """Rarefaction: numbers of chips and the strata that so many would show on average."""
    duplicates: tuple[float, int] | None
    """Share of the drawn units with a near-duplicate among them, and units judged."""
    duplicates_before: tuple[float, int] | None
    """The same among all observable units of phase 1."""
    averages: Sequence[Average] | None
    """Weighted averages with both design effects."""
    repeats: dict[int, int]
    """Chips on a ground cell → number of such cells."""


def diagnose(folder: Folder) -> Diagnosis:
    """Everything that the folder has data for; costs some seconds, bounded for any size."""
    evidence = read_evidence(folder)
    chips = None if folder.training_samples is None else with_state(folder.training_samples, "written")
    response = folder.training_response
    counts = _counts(chips, folder)
    weights = None if chips is None else chips["weight_design"].to_numpy()
    alike, before = _duplicates(response)
    return Diagnosis(
        strata=len(folder.frame_units),
        effective=effective_strata(list(counts.values())) if counts else None,
        kish=deff_weights(weights) if weights is not None and weights.any() else None,
        observable=_observable(_looks(folder, response)),
        looked_balance=_balance(evidence, response),
        chip_balance=_balance(evidence, chips),
        likeness=_likeness(folder, evidence, response),
        selftest=_selftest(folder, evidence, response),
        tradeoff=_tradeoff(folder),
        curve=_curve(list(counts.values())),
        duplicates=alike,
        duplicates_before=before,
        averages=averages(folder, evidence),
        repeats=repeats(ground_cells(chips["unit"].to_numpy())) if chips is not None else {},
    )


def _counts(chips: pa.Table | None, folder: Folder) -> dict[int, int]:
    """Written chips of each stratum of the frame."""
    if chips is None or not chips.num_rows:
        return {}
    strata, found = np.unique(chips["stratum"].to_numpy(), return_counts=True)
    return dict.fromkeys(folder.frame_units, 0) | dict(zip(strata.tolist(), found.tolist(), strict=True))


def _is_drawn(response: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(np.array(response["state"].to_pylist(), dtype=object) == "drawn")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Looks:
    """How much of each group was looked at, all waves together."""

    row: NDArray[np.int64]
    """Group of each row of the response."""
    frame: Floats
    """N, shape (G,)."""
    looked: Floats
    """k."""
    observable: Floats
    """o."""

    @property
    def stands_for(self) -> Floats:
        """N / k of each row: units of the training ground that it stands for, the split taken as it is."""
        return (self.frame / self.looked)[self.row]


def _looks(folder: Folder, response: pa.Table | None) -> _Looks | None:
    if response is None or not response.num_rows:
        return None
    parts, strata = (response[name].to_pylist() for name in ("part", "stratum"))
    groups, row = np.unique(np.column_stack([parts, strata]), axis=0, return_inverse=True)
    seen = response["observable"].to_numpy(zero_copy_only=False)
    looked = np.bincount(row.ravel()).astype(np.float64)
    frame = [folder.groups.get((int(part), TRAINING, int(h)), 0) for part, h in groups.tolist()]
    return _Looks(
        row=row.ravel(),
        frame=np.maximum(np.array(frame, dtype=np.float64), looked),
        looked=looked,
        observable=np.bincount(row.ravel(), weights=seen).astype(np.float64),
    )


def _observable(looks: _Looks | None) -> tuple[float, float] | None:
    """Σ N p / Σ N over the groups looked at, p their observable shares, and its standard error.

    Stratified simple random sampling (Cochran 1977, §5.6); a group with one look has no share of the error.
    """
    if looks is None:
        return None
    k, n = looks.looked, looks.frame
    p, w = looks.observable / k, n / n.sum()
    variance = w**2 * np.maximum(1 - k / n, 0.0) * p * (1 - p) / np.maximum(k - 1, 1)
    return float((w * p).sum()), float(np.sqrt(variance.sum()))


def _balance(evidence: Evidence | None, table: pa.Table | None) -> Balance | None:
    """Voronoi balance of the units of a table among the frame's."""
    if evidence is None or table is None or not table.num_rows:
        return None
    at = evidence.at(np.unique(table["unit"].to_numpy()))
    chosen = evidence.looked.take(at[at >= 0])
    ours = np.array([split == TRAINING for _, split, _ in evidence.groups])
    chosen, others = (units.take(ours[units.group]) for units in (chosen, evidence.pool))
    others = others.take(~np.isin(others.unit, chosen.unit))
    joined = chosen.and_also(others)
    return voronoi_balance(
        unit=joined.unit,
        group=joined.group,
        lon=joined.lon,
        lat=joined.lat,
        chosen=np.arange(joined.unit.size) < chosen.unit.size,
        seed=0,
    )


def _likeness(folder: Folder, evidence: Evidence | None, response: pa.Table | None) -> Likeness | None:
    """How near the covariates of looked-at and drawn units are to those of the frame and of the target."""
    if evidence is None or response is None or not evidence.names:
        return None
    ours = np.array([split == TRAINING for _, split, _ in evidence.groups])
    pool = evidence.pool.take(ours[evidence.pool.group] & _read(evidence.pool))
    if not pool.unit.size:
        return None
    expand = evidence.expand[pool.group]
    scale = standardise(pool.values, expand)
    frame = _cloud(pool, scaled(pool.values, *scale), expand)
    if not frame.values.shape[1]:
        return None
    target = frame.weighing(expand * (_target(folder, evidence) / np.maximum(evidence.units, 1))[pool.group])
    few = pool.unit.size <= 2 * MOST
    reference, aim = (cloud if few else cloud.even(2 * MOST) for cloud in (frame, target))
    looks = _looks(folder, response)
    assert looks is not None, "a response with rows has looks"
    inside = _is_drawn(response)
    drawn, stands_for = response.filter(pa.array(inside)), looks.stands_for
    lines = []
    for name, table, weight in (
        ("looked at, weighted", response, stands_for),
        ("drawn, as training sees them", drawn, np.ones(drawn.num_rows)),
        ("drawn, weighted", drawn, stands_for[inside] / drawn["pi2_given_phase1"].to_numpy()),
    ):
        if (sample := _sample(evidence, table, weight, scale)) is not None:
            cut = sample if sample.unit.size <= MOST else sample.even(MOST)
            lines.append((name, energy_distance(cut, reference), energy_distance(cut, aim)))
    size = min(MOST, drawn.num_rows)
    if not lines or not size:
        return None
    pool_of_random = frame.even(3 * MOST, mixed=True)
    random_frame, random_target = redraw_distances(pool_of_random, [reference, aim], size, seed=0)
    return Likeness(
        lines=lines,
        random_frame=random_frame,
        random_target=random_target,
        covariates=frame.values.shape[1],
        cut=not few or response.num_rows > MOST,
    )


def _read(units: Units) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(units.values).any(axis=1))


def _cloud(units: Units, values: Floats, weight: Floats) -> Cloud:
    return Cloud(unit=units.unit, values=values, weight=weight)


def _target(folder: Folder, evidence: Evidence) -> Floats:
    """Planned samples of each group, shape (G,): the target that the allocation declares."""
    wanted = np.zeros(len(evidence.groups))
    for wave in folder.waves:
        record = folder.records.get(wave.number)
        sizes = [float(n) for n in record.items("target") if isinstance(n, (int, float))] if record else []
        for i, (part, split, stratum) in enumerate(evidence.groups):
            if part == wave.part and split == TRAINING and stratum < len(sizes):
                wanted[i] += sizes[stratum]
    return wanted


def _sample(evidence: Evidence, table: pa.Table, weight: Floats, scale: tuple[Floats, ...]) -> Cloud | None:
    at = evidence.at(table["unit"].to_numpy())
    units = evidence.looked.take(at[at >= 0])
    read = _read(units)
    if not read.any():
        return None
    return _cloud(units, scaled(units.values, *scale), weight[at >= 0]).take(np.flatnonzero(read))


def _selftest(folder: Folder, evidence: Evidence | None, response: pa.Table | None) -> SelfTest | None:
    """Every wave against the part of the frame it draws from, summed over waves."""
    if evidence is None or response is None or not response.num_rows:
        return None
    keys = [(wave.number, i) for wave in folder.waves for i, g in enumerate(evidence.groups) if g[0] == wave.part]
    of = np.array([i for _, i in keys], dtype=np.int64)
    number = {(wave, *evidence.groups[i][1:]): n for n, (wave, i) in enumerate(keys)}
    rows = zip(response["wave"].to_pylist(), response["stratum"].to_pylist(), strict=True)
    group = np.array([number.get((wave, TRAINING, stratum), -1) for wave, stratum in rows], dtype=np.int64)
    at = evidence.at(response["unit"].to_numpy())
    known = (at >= 0) & (group >= 0)
    usable, group = response.filter(pa.array(known)), group[known]
    values = evidence.variables(evidence.looked.take(at[known]))
    labels = evidence.labels()
    names = [name for name, _ in labels]
    seen = usable["observable"].to_numpy(zero_copy_only=False)
    pi1, pi2 = (usable[name].to_numpy()[seen] for name in ("pi1", "pi2_given_phase1"))
    return SelfTest(
        looked=phase1_checks(names, values, group, evidence.sums.take(of)),
        drawn=phase2_checks(names, values[seen], group[seen], pi1, pi2, _is_drawn(usable)[seen]),
        units=[unit for _, unit in labels],
        labels=names,
        share=evidence.share,
    )


def _tradeoff(folder: Folder) -> Tradeoff | None:
    """The frontier of the training ground, had the samples of all waves been shared out at once."""
    waves = [w for w in folder.waves if w.number in folder.records and (w.number == 1 or w.number in folder.answered)]
    if not waves:
        return None
    design = folder.records[waves[0].number].part("design")
    parts = {wave.part: wave.number for wave in reversed(waves)}
    sizes = _by_stratum([folder.records[number] for number in parts.values()], "frame_units")
    target = _by_stratum([folder.records[wave.number] for wave in waves], "target")
    if not sizes.size or target.size != sizes.size or not target.sum():
        return None
    samples, present, floor = int(target.sum()), int((sizes > 0).sum()), design.count("floor") or 0
    if np.minimum(sizes, floor).sum() > samples / 2:
        floor = min(floor, samples // (2 * present))
    allocation = design.text("allocation") or "power"
    power = {"equal": 0.0, "proportional": 1.0, "neyman": 1.0}.get(allocation, design.number("power"))
    return Tradeoff(
        points=frontier(sizes, samples, floor=floor),
        power=0.5 if power is None else power,
        allocation=allocation,
        samples=samples,
        waves=len(waves),
    )


def _by_stratum(records: Sequence[Facts], name: str) -> Floats:
    """Sum over records of a number per training stratum, shape (H,)."""
    found = np.zeros(max(len(record.items("names")) for record in records))
    for record in records:
        values = [float(n) for n in record.items(name) if isinstance(n, (int, float))][: len(record.items("names"))]
        found[: len(values)] += values
    return found


def _curve(counts: Sequence[int]) -> tuple[Sequence[int], Floats] | None:
    total = sum(counts)
    if not total:
        return None
    sizes = np.unique(np.round(np.linspace(0, total, _CURVE)).astype(int)).tolist()
    return sizes, rarefaction(counts, sizes)


def _duplicates(response: pa.Table | None) -> tuple[tuple[float, int] | None, tuple[float, int] | None]:
    """Near-duplicates among the drawn units, and among all observable ones."""
    if response is None or "descriptor" not in response.column_names or not response.num_rows:
        return None, None
    lists = response["descriptor"].combine_chunks()
    length = np.diff(lists.offsets.to_numpy())
    known = np.flatnonzero((length == length.max()) & (length > 0))
    if not known.size:
        return None, None
    flat = lists.take(pa.array(known)).flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    points, group = flat.reshape(known.size, -1), response["stratum"].to_numpy()[known].astype(np.int64)
    drawn = _is_drawn(response)[known]
    return near_duplicate_share(points[drawn], group[drawn], RADIUS), near_duplicate_share(points, group, RADIUS)


def entropies(folder: Folder) -> tuple[Floats, Floats, NDArray[np.bool_]] | None:
    """(entropy, units of the frame it stands for, whether drawn) of the observable training units; None without any."""
    response = folder.training_response
    looks = _looks(folder, response)
    if response is None or looks is None or (values := column(response, "entropy")) is None:
        return None
    known = np.isfinite(values) & response["observable"].to_numpy(zero_copy_only=False)
    if not known.any():
        return None
    return values[known], looks.stands_for[known], _is_drawn(response)[known]
