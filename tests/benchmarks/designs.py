"""What designs give at equal n on frames of real ground: coverage of strata and covariates, errors of estimated means.

    python tests/benchmarks/designs.py --data DATA [--frames globe conus] [--samples 4000] [--redraws 200]
        [--json FILE] [--pictures DIR] [--populations DIR]

Frames are those of global_frame.py. Measures, fixed before the first run:

- *strata ≥ 10*: share of strata with ten units, or with all of them where they have fewer.
- *effective strata*: exp(−Σ p ln p) of the counts over H.
- *coverage loss*: mean over strata, each counting alike, of the mean distance from a unit of the stratum (at most 40,
  the same for all designs) to the nearest sampled unit, in standard deviations per standardised covariate.
- *score*: mean of the surrogate score in the sample over its mean in the frame.
- *RMSE*: of area-weighted means of eight variables that are neither raked nor constant within strata, over that of
  simple random, geometric mean over the variables; Hájek weights area / π, areas alone where a design has no π.
- *intervals*: share of 95 % intervals of geofm_sampling.estimation that hold the true mean, over variables and redraws.

`±` is the Monte Carlo standard error, by a bootstrap over redraws. `--populations` keeps the ground between
runs. Pictures need matplotlib, which the project does not depend on. Results: docs/evidence/designs.md.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

sys.path.insert(0, str(Path(__file__).resolve().parent))

from designs_methods import DESIGNS, FEW, FLOOR, Method, Rows, Sample, simple_random, stratified
from global_frame import ESTIMATED, Floats, Population, conus_cells, global_tiles, make_population

from geofm_sampling.diagnostics import effective_strata
from geofm_sampling.estimation import estimate, phases_metadata
from geofm_sampling.hashing import hashed_uniform

ENOUGH, PER_STRATUM = 10, 40


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """What samples of a population are measured with."""

    truth: Floats
    """Area means of the variables, (V,)."""
    places: Floats
    """Covariates of at most PER_STRATUM units per stratum, (m, d)."""
    stratum: Rows
    """Their strata, (m,)."""

    @classmethod
    def of(cls, population: Population) -> Ruler:
        lots = np.lexsort((hashed_uniform(0, "ruler", population.unit), population.stratum))
        first = np.cumsum(population.sizes) - population.sizes
        rank = np.arange(lots.size) - np.repeat(first, population.sizes)
        rows = np.sort(lots[rank < PER_STRATUM])
        truth = population.area @ population.estimated / population.area.sum()
        return cls(truth=truth, places=population.covariates[rows], stratum=population.stratum[rows])

    def coverage_loss(self, sample: Floats) -> float:
        """Macro mean distance to the nearest sampled unit, in standard deviations per covariate."""
        parts = [cdist(part, sample).min(axis=1) for part in np.array_split(self.places, 8)]
        apart = np.concatenate(parts) / np.sqrt(sample.shape[1])
        return float(np.mean(np.bincount(self.stratum, weights=apart) / np.bincount(self.stratum)))


def measure(population: Population, ruler: Ruler, sample: Sample) -> dict[str, float]:
    """The measures that need no redraws."""
    counts = np.bincount(population.stratum[sample.rows], minlength=population.sizes.size)
    return {
        "enough": float(np.mean(counts >= np.minimum(ENOUGH, population.sizes))),
        "effective": effective_strata(counts) / counts.size,
        "least": int(counts.min()),
        "loss": ruler.coverage_loss(population.covariates[sample.rows]),
        "score": float(population.score[sample.rows].mean() / population.score.mean()),
        "kish": float(sample.rows.size * (sample.weight**2).sum() / sample.weight.sum() ** 2),
    }


def errors(population: Population, ruler: Ruler, sample: Sample) -> Floats:
    """Estimated less true area means, (V,)."""
    weight = sample.weight * population.area[sample.rows]
    return np.asarray(weight @ population.estimated[sample.rows] / weight.sum() - ruler.truth)


def intervals(population: Population, ruler: Ruler, sample: Sample) -> NDArray[np.bool_] | None:
    """Whether the 95 % interval of each area mean holds the truth, (V,); None without π."""
    if sample.pi1 is None or sample.group is None or sample.records is None:
        return None
    rows, area = sample.rows, population.area[sample.rows]
    table = pa.table(
        {
            **{"wave": np.ones(rows.size, np.int16), "split": np.zeros(rows.size, np.int8)},
            **{"stratum": sample.group.astype(np.int32), "unit": population.unit[rows], "pi1": sample.pi1},
            **{name: population.frame[name].to_numpy()[rows] for name in ("lon", "lat")},
            "weight_design": sample.weight,
        }
    ).replace_schema_metadata(phases_metadata(pa.Table.from_pylist(sample.records)))
    held = []
    for value, truth in zip(population.estimated[rows].T, ruler.truth, strict=True):
        row = estimate(table, value * area, kind="ratio", denominator=area, local=sample.local).to_pylist()[0]
        held.append(row["low"] <= truth <= row["high"])
    return np.array(held)


def run_design(
    population: Population, ruler: Ruler, method: Method, n: int, redraws: int
) -> tuple[dict[str, float], Floats, NDArray[np.bool_]]:
    """Means of the measures over redraws, errors (R, V) and interval hits (R, V) of a design."""
    measured, missed, held = [], [], []
    for seed in range(1, redraws + 1):
        sample = method(population, n, seed)
        missed.append(errors(population, ruler, sample))
        if seed <= max(60, redraws // 3):
            measured.append(measure(population, ruler, sample))
            hits = intervals(population, ruler, sample)
            held += [] if hits is None else [hits]
    means = {key: float(np.mean([row[key] for row in measured])) for key in measured[0]}
    return means, np.array(missed), np.array(held)


def relative(missed: Floats, base: Floats) -> tuple[float, float, list[float]]:
    """RMSE over that of the base, geometric mean over variables; its Monte Carlo error; and each variable's ratio."""
    rng = np.random.default_rng(1)

    def ratios(a: Floats, b: Floats) -> Floats:
        return np.sqrt((a**2).mean(axis=0) / (b**2).mean(axis=0))

    again = [
        np.exp(np.log(ratios(missed[rng.integers(0, len(missed), len(missed))],
                             base[rng.integers(0, len(base), len(base))])).mean())
        for _ in range(300)
    ]  # fmt: skip
    each = ratios(missed, base)
    return float(np.exp(np.log(each).mean())), float(np.std(again)), each.tolist()


def compare(population: Population, n: int, redraws: int) -> dict[str, dict[str, object]]:
    """All designs on one population, printed as a table."""
    ruler, results, base = Ruler.of(population), dict[str, dict[str, object]](), np.empty(0)
    units, strata = population.unit.size, population.sizes.size
    print(
        f"\n{population.name}: {units:,} units, {strata} strata, n = {n:,}, {redraws} redraws\n\n"
        "| design | strata ≥ 10 | effective strata | coverage loss | score | RMSE | intervals | Kish |\n"
        + "| --- " * 8
        + "|"
    )
    for name, method in DESIGNS.items():
        start = time.perf_counter()
        means, missed, held = run_design(population, ruler, method, n, min(redraws, FEW.get(name, redraws)))
        base = base if base.size else missed
        rmse, error, each = relative(missed, base)
        hits = float(held.mean()) if held.size else float("nan")
        results[name] = {
            **means,
            **{"rmse": rmse, "error": error, "each": dict(zip(ESTIMATED, each, strict=True)), "intervals": hits},
            "intervals_each": held.mean(axis=0).tolist() if held.size else [],
            "redraws": len(missed),
            "seconds": time.perf_counter() - start,
        }
        shown = f"{hits:.3f}" if held.size else "none"
        print(
            f"| {name} | {means['enough']:.2f} | {means['effective']:.2f} | {means['loss']:.3f} | "
            f"{means['score']:.2f} | {rmse:.2f} ± {error:.2f} | {shown} | {means['kish']:.2f} |",
            flush=True,
        )
    return results


def powers(population: Population, n: int, redraws: int) -> list[dict[str, float]]:
    """Measured points of the frontier: the exponent, effective strata, the smallest stratum, the error."""
    ruler, rows = Ruler.of(population), []
    base = np.array([errors(population, ruler, simple_random(population, n, seed)) for seed in range(1, redraws + 1)])
    for power in (0.0, 0.25, 0.5, 0.75, 1.0):
        method = stratified(allocation="power", power=power, floor=FLOOR)
        means, missed, _ = run_design(population, ruler, method, n, redraws)
        rmse, error, _ = relative(missed, base)
        rows.append({"power": power, "rmse": rmse, "error": error, **means})
        print(f"q = {power:4.2f}: effective {means['effective']:.2f}, least {means['least']:.0f}, "
              f"RMSE {rmse:.2f} ± {error:.2f}, loss {means['loss']:.3f}", flush=True)  # fmt: skip
    return rows


def load(name: str, data: Path, keep: Path | None) -> Population:
    """The population, its ground from a former run where it was kept."""
    path = keep / f"{name}.pkl" if keep else None
    if path and path.exists():
        return make_population(name, pickle.loads(path.read_bytes()))
    ground = {"globe": global_tiles, "conus": conus_cells}[name](data)
    if path:
        path.write_bytes(pickle.dumps(ground))
    return make_population(name, ground)


def main() -> None:
    """Compare on all frames, write the figures, draw the pictures."""
    options = _options()
    results: dict[str, dict[str, object]] = {}
    populations = {}
    for name in options.frames:
        population = populations[name] = load(name, options.data, options.populations)
        found: dict[str, object] = {"units": population.unit.size, "sizes": population.sizes.tolist()}
        if not options.no_table:
            found["designs"] = compare(population, options.samples, options.redraws)
            found["powers"] = powers(population, options.samples, options.redraws)
        results[name] = found
        if options.json:
            options.json.write_text(json.dumps({"samples": options.samples, **results}, indent=1))
    if options.pictures:
        from designs_pictures import draw_pictures  # needs matplotlib

        given = json.loads(options.json.read_text()) if options.json and options.no_table else results
        draw_pictures(options.pictures, options.data, populations, given, options.samples)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder of the real data")
    parser.add_argument("--frames", nargs="+", default=["globe", "conus"], choices=["globe", "conus"])
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--redraws", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--populations", type=Path, help="folder that keeps the ground between runs")
    parser.add_argument("--no-table", action="store_true", help="draw pictures only, figures from --json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
