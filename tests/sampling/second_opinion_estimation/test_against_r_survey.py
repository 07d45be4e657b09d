"""Estimates, variances and raking against R's survey package, where R is installed (Debian: r-cran-survey)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest

from geofm_sampling.calibration import Margin, rake
from geofm_sampling.estimation import estimate, phases_metadata

pytestmark = pytest.mark.heavy


@dataclass(frozen=True, kw_only=True)
class Case:
    """Phase-1 units of three strata, of which some are observable and some of those sampled."""

    phase1: pa.Table
    samples: pa.Table
    whole: pa.Table
    """All phase-1 units as the samples of one phase."""


@pytest.fixture(scope="module")
def case() -> Case:
    rng = np.random.default_rng(7)
    frame, looked, drawn = np.array([60, 200, 35]), np.array([20, 30, 12]), np.array([6, 8, 4])
    stratum = np.repeat(np.arange(3), looked)
    n = stratum.size
    observable = rng.random(n) < 0.6
    sampled = np.zeros(n, dtype=bool)
    for h in range(3):
        sampled[rng.choice(np.flatnonzero((stratum == h) & observable), drawn[h], replace=False)] = True
    seen = np.bincount(stratum[observable], minlength=3)
    y, x = rng.normal(stratum + 2, 1), rng.uniform(1, 3, n)
    kind, side = rng.choice(["dry", "wet"], n), rng.choice(["east", "north", "west"], n)
    dry = kind == "dry"
    weight = (frame / looked * seen / drawn)[stratum] * sampled

    def linearised(x: np.ndarray, inside: np.ndarray) -> np.ndarray:
        below = (weight * x * inside).sum()
        return np.where(inside & observable, (y - (weight * y * inside).sum() / below * x) / below, 0.0)

    every = np.ones(n, dtype=bool)
    phase1 = pa.table(
        {
            "stratum": stratum,
            "cell2": stratum * 2 + observable,
            "frame": frame[stratum],
            "sampled": (sampled | ~observable).astype(int),
            "y": y * observable,
            "x": x * observable,
            "one": observable.astype(float),
            "ydry": y * observable * dry,
            "onedry": (observable & dry).astype(float),
            "emean": linearised(np.ones(n), every),
            "eratio": linearised(x, every),
            "edry": linearised(np.ones(n), dry),
            "z": 1 + x * x,
            "kind": pa.array(kind.tolist()),
            "side": pa.array(side.tolist()),
        }
    )
    pi1, pi2 = looked / frame, drawn / seen
    counts = {"wave": 1, "split": 0}
    two = [
        {**counts, "stratum": h, "frame": int(frame[h]), "looked": int(looked[h]), "observable": int(seen[h])}
        | {"drawn": int(drawn[h]), "written": int(drawn[h])}
        for h in range(3)
    ]
    one = [
        r | {"looked": r["frame"], "observable": r["frame"], "drawn": int(k), "written": int(k)}
        for r, k in zip(two, looked, strict=True)
    ]
    rows = np.flatnonzero(sampled)
    return Case(
        phase1=phase1,
        samples=_samples(rows, stratum, pi1, 1 / (pi1 * pi2), two, y=y, x=x, kind=kind, side=side),
        whole=_samples(
            np.arange(n), stratum, np.ones(3), 1 / pi1, one, x=x * observable, z=1 + x * x, kind=kind, side=side
        ),
    )


def _samples(
    rows: np.ndarray,
    stratum: np.ndarray,
    pi1: np.ndarray,
    weight: np.ndarray,
    records: list[dict[str, int]],
    **columns: np.ndarray,
) -> pa.Table:
    h = stratum[rows]
    table = {
        "wave": np.ones(rows.size, np.int16),
        "split": np.zeros(rows.size, np.int8),
        "stratum": h.astype(np.int32),
        "unit": rows.astype(np.uint64) << np.uint64(10),
        "lon": rows * 0.1,
        "lat": rows * 0.0,
        "pi1": pi1[h],
        "weight_design": weight[h],
        **{name: pa.array(values[rows].tolist()) for name, values in columns.items()},
    }
    return pa.table(table).replace_schema_metadata(phases_metadata(pa.Table.from_pylist(records)))


@pytest.fixture(scope="module")
def margins(case: Case) -> list[Margin]:
    weight, rng = case.whole["weight_design"].to_numpy(), np.random.default_rng(1)
    truth = weight * rng.uniform(0.7, 1.4, weight.size)
    labels = {name: np.array(case.whole[name].to_pylist()) for name in ("kind", "side")}
    return [
        Margin(name=name, labels=v, totals={str(u): float(truth[v == u].sum()) for u in np.unique(v)})
        for name, v in labels.items()
    ]


@pytest.fixture(scope="module")
def opinion(case: Case, margins: list[Margin], tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """What R says of the same tables, by name."""
    if shutil.which("Rscript") is None:
        pytest.skip("Rscript is not installed (apt-get install r-base-core r-cran-survey)")
    folder = tmp_path_factory.mktemp("survey")
    csv.write_csv(case.phase1, folder / "phase1.csv")
    for margin in margins:
        table = pa.table({margin.name: list(margin.totals), "Freq": list(margin.totals.values())})
        csv.write_csv(table, folder / f"{margin.name}.csv")
    script = Path(__file__).with_name("survey.R")
    done = subprocess.run(["Rscript", str(script), str(folder)], capture_output=True, text=True, check=False)
    if "there is no package called" in done.stderr:
        pytest.skip("R has no package survey (apt-get install r-cran-survey)")
    assert done.returncode == 0, done.stderr
    return {name: float(value) for name, value in (line.split(",") for line in done.stdout.splitlines())}


@pytest.mark.parametrize("name", ["total", "mean", "ratio", "dry"])
def test_two_phases_as_twophase(case: Case, opinion: dict[str, float], name: str) -> None:
    """Estimates and standard errors of two-phase simple random sampling equal `twophase(method = "full")` to 1e-9.

    R is given the linearised variables of means and ratios, stratum by stratum (see survey.R).
    """
    kind = {"total": "total", "ratio": "ratio"}.get(name, "mean")
    result = estimate(
        case.samples,
        "y",
        kind=kind,  # type: ignore[arg-type]
        denominator="x" if kind == "ratio" else None,
        by="kind" if name == "dry" else None,
        local=False,
    )
    row = result.to_pylist()[0]
    assert row["estimate"] == pytest.approx(opinion[f"{name}.estimate"], rel=1e-9)
    assert row["standard_error"] == pytest.approx(opinion[f"{name}.error"], rel=1e-9)


@pytest.mark.parametrize("name", ["mean", "total", "ratio", "dry"])
def test_one_phase_as_svydesign(case: Case, opinion: dict[str, float], name: str) -> None:
    """With all units looked at, the estimates are those of a stratified sample: `svymean`, `svytotal`, `svyratio`."""
    kind = {"total": "total", "ratio": "ratio"}.get(name, "mean")
    result = estimate(
        case.whole,
        "x",
        kind=kind,  # type: ignore[arg-type]
        denominator="z" if kind == "ratio" else None,
        by="kind" if name == "dry" else None,
        local=False,
    )
    row = result.to_pylist()[0]
    assert row["estimate"] == pytest.approx(opinion[f"one.{name}.estimate"], rel=1e-9)
    assert row["standard_error"] == pytest.approx(opinion[f"one.{name}.error"], rel=1e-9)
    if f"one.{name}.deff" in opinion:
        assert row["deff_design"] == pytest.approx(opinion[f"one.{name}.deff"], rel=1e-6)


def test_raking_as_rake(case: Case, margins: list[Margin], opinion: dict[str, float]) -> None:
    """Raked weights with bounds that do not bind equal R's to 1e-6."""
    weights = case.whole["weight_design"].to_numpy()
    ours = rake(weights, margins, bounds=(0.0, 1e6), tolerance=1e-11).weights
    theirs = [opinion[f"raked.{i + 1}"] for i in range(weights.size)]
    assert ours == pytest.approx(theirs, rel=1e-6)
