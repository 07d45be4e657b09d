"""A made-up world whose every value is known, sampled by the project's own draws: how good are the estimates?

    python tests/benchmarks/estimation_world.py --repeats 1000 --json coverage.json

prints bias, standard error against the true spread, and coverage of the intervals, for several populations.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.draws import draw
from geofm_sampling.estimation import estimate, phases_metadata
from geofm_sampling.hilbert import hilbert_of_ground
from geofm_sampling.pivotal import balanced_order
from geofm_sampling.probabilities import capped_probabilities

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class World:
    """All units of a frame, sorted along the Hilbert curve; shape (N,) each."""

    unit: NDArray[np.uint64]
    lon: Floats
    lat: Floats
    stratum: Ints
    y: Floats
    """The variable of interest."""
    observable: NDArray[np.bool_]
    size: Floats
    """Sizes of phase 2."""
    kind: NDArray[np.str_]
    """A domain that crosses strata."""
    block: Ints
    """Split block."""

    @property
    def order(self) -> list[Ints]:
        """Rows of each stratum along the curve."""
        return [np.flatnonzero(self.stratum == h) for h in range(int(self.stratum.max()) + 1)]


def make_world(
    *, side: int = 40, seasons: int = 2, trend: float = 1.0, noise: float = 0.5, correlated: bool = True, seed: int = 1
) -> World:
    """A square of side² cells in `seasons` seasons; strata of unequal size, half hidden, more where y is low."""
    rng = np.random.default_rng(seed)
    row, col = np.divmod(np.arange(side**2), side)
    lon, lat = col * 0.08, 10 + row * 0.08
    cell = np.argsort(hilbert_of_ground(lon, lat), kind="stable")
    u, v = row[cell] / side, col[cell] / side
    field = trend * (2 * u + np.sin(5 * v) + np.cos(7 * u * v))
    season = np.tile(np.arange(seasons), side**2)
    value = np.repeat(field, seasons) + 0.7 * season + noise * rng.standard_normal(season.size)
    land = np.digitize(u + 0.1 * rng.standard_normal(u.size), [0.1, 0.35])
    cloud = np.repeat(0.5 + 0.35 * np.sin(6 * u + 3 * v), seasons)
    chance = np.clip(cloud + 0.1 * (value - value.mean()) / value.std(), 0.05, 0.98)
    push = value - value.mean() if correlated else rng.standard_normal(value.size)
    return World(
        unit=(np.repeat(cell, seasons).astype(np.uint64) << np.uint64(10)) | season.astype(np.uint64),
        lon=np.repeat(lon[cell], seasons),
        lat=np.repeat(lat[cell], seasons),
        stratum=np.repeat(land, seasons) * seasons + season,
        y=value,
        observable=rng.random(value.size) < chance,
        size=np.clip(np.exp(0.8 * push / value.std()), 1 / 8, 8),
        kind=np.repeat(np.where(np.sin(9 * v) > 0.2, "dry", "wet"), seasons),
        block=np.repeat((u * 10).astype(np.int64) * 10 + (v * 10).astype(np.int64), seasons),
    )


def master_ranks(world: World, seed: int) -> list[Ints]:
    """Rows of each stratum by rank of its master draw, which holds the whole stratum."""
    return [rows[balanced_order(rows.size, seed=seed, purpose=f"rank/{h}")] for h, rows in enumerate(world.order)]


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One wave as drawn."""

    rows: Ints
    """Drawn rows of the world."""
    pi1: Floats
    pi2: Floats
    clear: Floats
    """Observable share of the looked at, shape (H,)."""
    records: list[dict[str, int | float]]


def draw_wave(
    world: World,
    ranked: list[Ints],
    *,
    first: Ints,
    looked: Ints,
    wanted: Ints,
    size: Floats,
    seed: int,
    wave: int = 1,
    share: float = 1.0,
    method: str = "pivotal",
) -> Wave:
    """Ranks first_h … first_h + looked_h − 1 are phase 1, `wanted` of the observable ones phase 2."""
    rows, pi1, pi2, clear = list[Ints](), list[Floats](), list[Floats](), list[float]()
    records = list[dict[str, int | float]]()
    for h, order in enumerate(ranked):
        phase1 = np.sort(order[first[h] : first[h] + looked[h]])
        seen = phase1[world.observable[phase1]]
        n = min(int(wanted[h]), seen.size)
        p = capped_probabilities(size[seen], n) if n else np.zeros(0)
        ids = world.unit[seen].astype(np.int64)
        chosen = draw(p, method=method, seed=seed, purpose=f"{wave}/{h}", ids=ids) if n else np.zeros(0, np.int64)
        rows.append(seen[chosen])
        pi1.append(np.full(n, phase1.size / order.size))
        pi2.append(p[chosen])
        clear.append(seen.size / max(phase1.size, 1))
        records.append(
            {
                **{"wave": wave, "split": 0, "stratum": h, "frame": order.size, "looked": phase1.size},
                **{"observable": seen.size, "drawn": n, "written": n, "lambda": share},
            }
        )
    return Wave(
        rows=np.concatenate(rows),
        pi1=np.concatenate(pi1),
        pi2=np.concatenate(pi2),
        clear=np.array(clear),
        records=records,
    )


def samples_table(world: World, waves: list[Wave]) -> pa.Table:
    """What samples.parquet would hold."""
    rows = np.concatenate([wave.rows for wave in waves])
    number = np.repeat([wave.records[0]["wave"] for wave in waves], [wave.rows.size for wave in waves])
    share = np.repeat([wave.records[0]["lambda"] for wave in waves], [wave.rows.size for wave in waves])
    pi1, pi2 = (np.concatenate([getattr(wave, name) for wave in waves]) for name in ("pi1", "pi2"))
    clear = np.concatenate([wave.clear[world.stratum[wave.rows]] for wave in waves])
    table = pa.table(
        {
            "wave": number.astype(np.int16),
            "split": np.zeros(rows.size, np.int8),
            "stratum": world.stratum[rows].astype(np.int32),
            "unit": world.unit[rows],
            "lon": world.lon[rows],
            "lat": world.lat[rows],
            "pi1": pi1,
            "weight_design": share / (pi1 * pi2),
            "weight_full": share / (pi1 * pi2 * clear),
            "block": world.block[rows].astype(np.int32),
            "y": world.y[rows],
            "kind": pa.array(world.kind[rows].tolist()),
        }
    )
    records = pa.Table.from_pylist([record for wave in waves for record in wave.records])
    return table.replace_schema_metadata(phases_metadata(records))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a one-wave design, shape (H,) each."""

    looked: Ints
    wanted: Ints


def usual_sizes(world: World, *, samples: int = 120, first_phase: float = 3.0) -> Sizes:
    """n_h ∝ √N_h with a floor of 4, k_h three times that at most N_h."""
    count = np.array([rows.size for rows in world.order])
    wanted = np.maximum(4, np.round(samples * np.sqrt(count) / np.sqrt(count).sum())).astype(np.int64)
    return Sizes(looked=np.minimum(count, np.ceil(first_phase * wanted).astype(np.int64)), wanted=wanted)


def one_sample(
    world: World, sizes: Sizes, seed: int, *, size: Floats | None = None, method: str = "pivotal"
) -> pa.Table:
    """A sample of one wave."""
    zero = np.zeros_like(sizes.looked)
    wave = draw_wave(
        world,
        master_ranks(world, seed),
        first=zero,
        looked=sizes.looked,
        wanted=sizes.wanted,
        size=world.size if size is None else size,
        seed=seed,
        method=method,
    )
    return samples_table(world, [wave])


def part_of(world: World, keep: NDArray[np.bool_]) -> World:
    """The world of some units only; every stratum keeps at least one."""
    return World(**{name: values[keep] for name, values in vars(world).items()})


def two_waves(world: World, sizes: Sizes, seed: int) -> pa.Table:
    """A first wave, and a second of half its size whose sizes of phase 2 favour what the first did not see.

    The second wave reads the next ranks; λ is 2/3 and 1/3, as planned.
    """
    ranked, zero = master_ranks(world, seed), np.zeros_like(sizes.looked)
    first = draw_wave(
        world, ranked, first=zero, looked=sizes.looked, wanted=sizes.wanted, size=world.size, seed=seed, share=2 / 3
    )
    known = np.sort(world.y[first.rows])
    at = np.searchsorted(known, world.y).clip(1, known.size - 1)
    novelty = np.minimum(np.abs(world.y - known[at - 1]), np.abs(world.y - known[at]))
    size = np.clip((novelty + 1e-3) / np.median(novelty), 1 / 8, 8)
    more = (sizes.looked + 1) // 2
    second = draw_wave(
        world,
        ranked,
        first=sizes.looked,
        looked=np.minimum(more, [rows.size - k for rows, k in zip(ranked, sizes.looked, strict=True)]),
        wanted=(sizes.wanted + 1) // 2,
        size=size,
        seed=seed,
        wave=2,
        share=1 / 3,
    )
    return samples_table(world, [first, second])


def heldout_sample(world: World, seed: int, *, p_b: float = 0.3, samples: int = 60) -> pa.Table:
    """Held-out blocks by independent coins, then an equal-probability two-phase draw of their units."""
    blocks = np.unique(world.block)
    held = blocks[np.random.default_rng(seed).random(blocks.size) < p_b]
    inside = part_of(world, np.isin(world.block, held))
    sizes = usual_sizes(inside, samples=samples)
    table = one_sample(inside, sizes, seed, size=np.ones(inside.y.size))
    changed = {"pi1": table["pi1"].to_numpy() * p_b, "split": np.ones(table.num_rows, np.int8)}
    changed |= {name: table[name].to_numpy() / p_b for name in ("weight_design", "weight_full")}
    for name, values in changed.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    records = [record | {"split": 1} for record in json.loads(table.schema.metadata[b"geofm_phases"])]
    return table.replace_schema_metadata(phases_metadata(pa.Table.from_pylist(records)))


def single_phase_interval(table: pa.Table, *, total: bool = False) -> tuple[float, float, float, float]:
    """As row_of, a mean or total by the textbook formula for one phase with probabilities π*: what not to do."""
    w, y, h = (table[name].to_numpy() for name in ("weight_design", "y", "stratum"))
    value = float((w * y).sum()) if total else float((w * y).sum() / w.sum())
    e, variance = y if total else (y - value) / w.sum(), 0.0
    for stratum in np.unique(h):
        here = h == stratum
        x, c, n = w[here] * e[here], 1 - 1 / w[here], here.sum()
        variance += float((c * (x - (c * x).sum() / c.sum()) ** 2).sum() * n / (n - 1))
    error = variance**0.5
    return value, error, value - 1.98 * error, value + 1.98 * error


@dataclass(frozen=True, kw_only=True)
class Score:
    """How estimates did over repeated draws."""

    bias: float
    """Mean error in standard deviations of the estimate."""
    bias_limit: float
    """Three standard errors of `bias`: what chance leaves."""
    variance_ratio: float
    """Mean estimated variance over the true one."""
    coverage: float
    """Share of 95 % intervals that hold the truth."""


def score(estimates: list[tuple[float, float, float, float]], truth: float) -> Score:
    """From (estimate, standard error, low, high) of each draw."""
    value, error, low, high = np.array(estimates).T
    return Score(
        bias=float((value.mean() - truth) / value.std()),
        bias_limit=3 / len(estimates) ** 0.5,
        variance_ratio=float((error**2).mean() / value.var()),
        coverage=float(((low <= truth) & (truth <= high)).mean()),
    )


def row_of(result: pa.Table, domain: str = "all") -> tuple[float, float, float, float]:
    """(estimate, standard error, low, high) of one domain."""
    row = next(row for row in result.to_pylist() if row["domain"] == domain)
    return row["estimate"], row["standard_error"], row["low"], row["high"]


def compare(world: World, repeats: int) -> dict[str, Score]:
    """Every kind of estimate over `repeats` draws of the usual design."""
    sizes, seen, dry = usual_sizes(world), world.observable, world.kind == "dry"
    truth = {"mean": world.y[seen].mean(), "total": world.y[seen].sum(), "domain mean": world.y[seen & dry].mean()}
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in range(repeats):
        table = one_sample(world, sizes, seed)
        for form in (False, True):
            name = "local" if form else "global"
            found.setdefault(f"mean, {name}", []).append(row_of(estimate(table, "y", local=form)))
            found.setdefault(f"total, {name}", []).append(row_of(estimate(table, "y", kind="total", local=form)))
            domain = row_of(estimate(table, "y", by="kind", local=form), "dry")
            found.setdefault(f"domain mean, {name}", []).append(domain)
        found.setdefault("mean, local, cells", []).append(row_of(estimate(table, "y", cells=True)))
        found.setdefault("mean, one phase", []).append(single_phase_interval(table))
        found.setdefault("total, one phase", []).append(single_phase_interval(table, total=True))
    return {name: score(values, truth[name.split(",")[0]]) for name, values in found.items()}


WORLDS = {
    "trend, sizes follow y": {"trend": 1.0, "correlated": True},
    "trend, other sizes": {"trend": 1.0, "correlated": False},
    "noise, other sizes": {"trend": 0.0, "correlated": False},
    "four seasons, one value per cell": {"trend": 0.5, "noise": 0.0, "seasons": 4},
}


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'population':34} {'estimate':22} {'bias/sd':>8} {'V/true V':>9} {'coverage':>9}")
    for name, values in WORLDS.items():
        for kind, result in compare(make_world(**values), options.repeats).items():  # type: ignore[arg-type]
            print(
                f"{name:34} {kind:22} {result.bias:8.3f} {result.variance_ratio:9.2f} {result.coverage:9.3f}",
                flush=True,
            )
            rows.append({"population": name, "estimate": kind, **vars(result)})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
