"""The analysis of sampling_training.py: paired differences over seeds with intervals, as the protocol says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from sampling_training_data import Arm, Pool

from geofm_model.evaluation.estimates import t_quantile

Floats = NDArray[np.float64]

LEAST = 8
"""Held-out samples below which a stratum is left out of the macro loss."""
MARGIN = 0.1
"""Of uniform's drop from n/4 to n: what our design may lose and still count as not worse."""
PAIRS = (
    *(("ours-1", "uniform-1"), ("ours-0.5", "uniform-1"), ("uniform-0.25", "uniform-1")),
    *(("ours-0.5", "equal-0.5"), ("ours-0.5", "entropy-0.5"), ("equal-0.5", "uniform-1"), ("entropy-0.5", "uniform-1")),
)
"""Arms that are compared, the first less the second."""
MEASURES = {
    "macro": "macro held-out loss: every stratum counts alike",
    "area": "area-weighted held-out loss",
    "rare": "macro loss of the rarer half of the strata",
    "common": "macro loss of the other half",
    "left": "area-weighted loss over that of the band means",
    "knn": "kNN on land cover, balanced accuracy",
    "linear": "linear probe on land cover, balanced accuracy",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One run: what it learnt from and what it is worth on each held-out sample."""

    arm: Arm
    seed: int
    units: NDArray[np.uint64]
    cpu_seconds: NDArray[np.float64]
    errors: Floats
    counts: Floats
    baseline: Floats
    knn: NDArray[np.bool_]
    linear: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """What was found: lines for people, facts for machines, numbers for the picture."""

    lines: list[str]
    facts: dict[str, object]
    measured: dict[str, list[dict[str, float]]]
    """By arm, one record per seed in their order."""
    strata: list[dict[str, float | str]]


class Judge:
    """Turns a trial into numbers."""

    def __init__(self, pool: Pool) -> None:
        self.weight = pool.column("weight_design")[pool.heldout].astype(np.float64)
        self.stratum = pool.column("stratum")[pool.heldout].astype(np.int64)
        self.cover = pool.column("land_cover")[pool.heldout]
        units = pool.column("split") == 0
        self.size = np.bincount(pool.column("stratum")[units].astype(np.int64), minlength=len(pool.strata))
        held = np.bincount(self.stratum, minlength=len(pool.strata))
        self.kept = np.flatnonzero((held >= LEAST) & (self.size > 0))
        self.held = held[self.kept]
        self.rare = np.argsort(np.argsort(self.size[self.kept], kind="stable")) < self.kept.size // 2

    def by_stratum(self, trial: Trial) -> Floats:
        """Loss of each stratum that is judged."""
        above, below = (np.bincount(self.stratum, self.weight * part) for part in (trial.errors, trial.counts))
        return np.asarray(above[self.kept] / below[self.kept])

    def measures(self, trial: Trial) -> dict[str, float]:
        """Numbers by the names of MEASURES."""
        loss = self.by_stratum(trial)
        total = float(self.weight @ trial.errors)
        return {
            "macro": float(loss.mean()),
            "area": total / float(self.weight @ trial.counts),
            "rare": float(loss[self.rare].mean()),
            "common": float(loss[~self.rare].mean()),
            "left": total / float(self.weight @ trial.baseline),
            "knn": self._balanced(trial.knn),
            "linear": self._balanced(trial.linear),
        }

    def _balanced(self, right: NDArray[np.bool_]) -> float:
        """Mean over the classes of the weighted share of right answers."""
        shares = [
            np.average(right[self.cover == name], weights=self.weight[self.cover == name])
            for name in np.unique(self.cover)
        ]
        return float(np.mean(shares))


def interval(values: Floats) -> tuple[float, float, float]:
    """Mean and 95 % interval by Student's t."""
    mean = float(values.mean())
    if values.size < 2:
        return mean, float("-inf"), float("inf")
    reach = t_quantile(values.size - 1.0) * float(values.std(ddof=1)) / values.size**0.5
    return mean, mean - reach, mean + reach


def fieller(above: Floats, below: Floats) -> tuple[float, float] | None:
    """95 % interval of mean(above) / mean(below) of pairs (Fieller 1954); None where it is not bounded."""
    t2 = t_quantile(above.size - 1.0) ** 2 / above.size
    cov = np.cov(above, below)
    m, d = float(above.mean()), float(below.mean())
    a, b, c = d * d - t2 * cov[1, 1], m * d - t2 * cov[0, 1], m * m - t2 * cov[0, 0]
    inside = b * b - a * c
    if a <= 0 or inside < 0:
        return None
    return (b - inside**0.5) / a, (b + inside**0.5) / a


def analyse(pool: Pool, trials: list[Trial]) -> Analysis:
    """All tables of the protocol that the arms allow."""
    judge = Judge(pool)
    ordered = sorted(trials, key=lambda trial: (trial.arm.name, trial.seed))
    arms = {name: list(part) for name, part in groupby(ordered, key=lambda trial: trial.arm.name)}
    measured = {name: [judge.measures(trial) for trial in part] for name, part in arms.items()}
    values = {name: {key: np.array([row[key] for row in rows]) for key in MEASURES} for name, rows in measured.items()}
    lines = _levels(values, arms)
    facts: dict[str, object] = {"measured": measured}
    if {"uniform-1", "uniform-0.25", "ours-0.5"} <= set(values):
        facts["primary"], said = _primary(values)
        lines += said
    for one, other in PAIRS:
        if one in values and other in values:
            lines += ["", f"{one} − {other}: mean and 95 % interval over {len(arms[one])} seeds"]
            found = {key: interval(values[one][key] - values[other][key]) for key in MEASURES}
            lines += [f"  {MEASURES[key]}: {_said(*numbers)}" for key, numbers in found.items()]
            facts[f"{one} − {other}"] = found
    strata = _strata(pool, judge, arms) if {"ours-1", "uniform-1"} <= set(arms) else []
    lines += (
        ["", "| stratum | pool | held-out | in uniform | in ours | loss, uniform | ours − uniform |"] if strata else []
    )
    lines += [
        f"| {row['name']} | {row['pool']} | {row['held']} | {row['in uniform']:.1f} | {row['in ours']:.1f} "
        f"| {row['loss']:.4f} | {_said(float(row['mean']), float(row['low']), float(row['high']))} |"
        for row in strata
    ]
    facts["strata"] = strata
    return Analysis(lines=lines, facts=facts, measured=measured, strata=strata)


def _said(mean: float, low: float, high: float) -> str:
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _levels(values: dict[str, dict[str, Floats]], arms: dict[str, list[Trial]]) -> list[str]:
    lines = ["", "| arm | samples | " + " | ".join(MEASURES) + " | CPU s |", "|---" * (len(MEASURES) + 3) + "|"]
    for name, found in values.items():
        cells = [
            f"{found[key].mean():.4f} ± {found[key].std(ddof=1) if found[key].size > 1 else 0:.4f}" for key in found
        ]
        spent = np.mean([float(trial.cpu_seconds) for trial in arms[name]])
        lines.append(f"| {name} | {arms[name][0].units.size} | " + " | ".join(cells) + f" | {spent:.0f} |")
    return lines


def _primary(values: dict[str, dict[str, Floats]]) -> tuple[dict[str, object], list[str]]:
    """Ours at n/2 not worse than uniform at n, by a tenth of uniform's drop from n/4 to n; on both losses."""
    facts: dict[str, object] = {}
    lines = [""]
    for key, role in (("macro", "primary"), ("area", "guard")):
        worse = values["ours-0.5"][key] - values["uniform-1"][key]
        drop = values["uniform-0.25"][key] - values["uniform-1"][key]
        dropped = interval(drop)
        over = interval(worse - MARGIN * drop)
        if dropped[1] <= 0:
            verdict = "not identifiable: more samples drawn uniformly do not lower the loss beyond doubt"
        else:
            verdict = "not worse" if over[2] < 0 else "worse" if over[1] > 0 else "undecided"
        ratio, ends = float(worse.mean() / drop.mean()), fieller(worse, drop)
        between = f"{ends[0]:+.2f} to {ends[1]:+.2f}" if ends and dropped[1] > 0 else "not identifiable"
        facts[role] = {"worse": interval(worse), "drop": dropped, "over": over, "ratio": ratio, "ends": ends}
        lines += [
            f"{role}, {MEASURES[key]}: {verdict}",
            f"  ours at n/2 less uniform at n {_said(*interval(worse))}; drop {_said(*dropped)}",
            f"  difference less a tenth of the drop {_said(*over)}; difference over drop {ratio:+.2f} ({between})",
        ]
    return facts, lines


def _strata(pool: Pool, judge: Judge, arms: dict[str, list[Trial]]) -> list[dict[str, float | str]]:
    """Ours less uniform at equal n, stratum by stratum, from the rarest on."""
    loss = {name: np.array([judge.by_stratum(trial) for trial in arms[name]]) for name in ("ours-1", "uniform-1")}
    inside = {name: np.mean([_counts(pool, trial) for trial in arms[name]], axis=0) for name in loss}
    rows: list[dict[str, float | str]] = []
    for at in np.argsort(judge.size[judge.kept], kind="stable").tolist():
        stratum = int(judge.kept[at])
        mean, low, high = interval(loss["ours-1"][:, at] - loss["uniform-1"][:, at])
        rows.append(
            {
                "name": pool.strata[stratum],
                "pool": int(judge.size[stratum]),
                "held": int(judge.held[at]),
                "in uniform": float(inside["uniform-1"][stratum]),
                "in ours": float(inside["ours-1"][stratum]),
                "loss": float(loss["uniform-1"][:, at].mean()),
                "mean": mean,
                "low": low,
                "high": high,
            }
        )
    return rows


def _counts(pool: Pool, trial: Trial) -> NDArray[np.int64]:
    """Units of a training set in each stratum."""
    found = pool.column("stratum")[pool.indices(trial.units)].astype(np.int64)
    return np.bincount(found, minlength=len(pool.strata))
