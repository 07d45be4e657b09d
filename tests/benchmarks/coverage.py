"""What designs select from real pixels at equal n: coverage, redundancy and estimates.

    python tests/benchmarks/coverage.py --data FOLDER [--redraws 200] [--json FILE] [--pictures DIR]
    python tests/benchmarks/coverage.py --data FOLDER --population landsat cloud pair flood

FOLDER holds imagery/oscd-20m and labelled/gewata. Populations: patches of 16 cities at two dates (strata: cities) and
of one Landsat scene with land cover (strata: dominant class). Every design sees the 16 × 16 overview of a patch only;
all patches are a first phase of probability 1. Measures, fixed before the first run, are on full pixels. Pictures need
matplotlib. --population repeats it on pixels that the first run did not see, to confirm hypotheses H1 and H2.
Results and how to read them: docs/evidence/coverage.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

sys.path.insert(0, str(Path(__file__).resolve().parent))

from coverage_fresh import FRESH  # scripts beside this one
from coverage_population import Array, Population, gewata, oscd

from geofm_sampling.allocation import allocate
from geofm_sampling.draws import draw
from geofm_sampling.information import descriptors, sizes, spectral_entropies, spread
from geofm_sampling.kmeans import fit_centroids, nearest_centroid
from geofm_sampling.pivotal import ordered_pivotal_pps
from geofm_sampling.probabilities import capped_probabilities
from geofm_sampling.similarity import RADIUS, near_duplicates

FLOOR = 10
ENOUGH = 3
"""Patches of a stratum from which it counts as present."""
Draw = tuple[Array, Array | None]
"""Positions drawn and their inclusion probabilities, None where a design has none."""
Design = Callable[[Population, int, int], Draw]


def pps(population: Population, rows: Array, size: Array, n: int, seed: int, purpose: str) -> tuple[Array, Array]:
    """Capped πps of n among rows by ordered pivotal sampling along the curve: positions and probabilities."""
    rows = rows[np.argsort(population.order[rows])]
    probability = capped_probabilities(size[rows], n)
    drawn = ordered_pivotal_pps(probability, seed=seed, purpose=purpose)
    return rows[drawn], probability[drawn]


def within_strata(population: Population, counts: Array, size: Array, seed: int) -> Draw:
    """A πps draw in every stratum."""
    parts = [
        pps(population, np.flatnonzero(population.stratum == h), size, int(n_h), seed, f"stratum/{h}")
        for h, n_h in enumerate(counts)
        if n_h
    ]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([pi for _, pi in parts])


def random(population: Population, n: int, seed: int) -> Draw:
    """Simple random sampling."""
    N = len(population.entropy)
    return np.random.default_rng([seed, 1]).choice(N, n, replace=False), np.full(n, n / N)


def land_cover_only(population: Population, n: int, seed: int) -> Draw:
    """Equal numbers per stratum, random within."""
    N_h, rng = np.bincount(population.stratum), np.random.default_rng([seed, 2])
    counts = allocate(N_h, n, power=0.0)
    rows = [rng.choice(np.flatnonzero(population.stratum == h), n_h, replace=False) for h, n_h in enumerate(counts)]
    return np.concatenate(rows), np.repeat(counts / N_h, counts)


def entropy_only(population: Population, n: int, seed: int) -> Draw:
    """πps ∝ entropy over everything, no strata."""
    return pps(population, np.arange(len(population.entropy)), np.maximum(population.entropy, 1e-3), n, seed, "entropy")


def k_means(population: Population, n: int, seed: int) -> Draw:
    """The patch nearest to each of n centroids of the descriptors; no probabilities."""
    points = population.descriptor
    order = np.random.default_rng([seed, 3]).permutation(len(points))
    centres = fit_centroids(points[order], n, seed=seed, starts=1, iterations=15)
    label = nearest_centroid(points, centres)
    distance = np.linalg.norm(points - centres[label], axis=1)
    first = np.lexsort((distance, label))
    chosen = first[np.unique(label[first], return_index=True)[1]]
    rest = np.setdiff1d(np.arange(len(points)), chosen)  # an empty cluster gives its place to the worst covered
    far = rest[np.argsort(-distance[rest])][: n - len(chosen)]
    return np.concatenate([chosen, far]), None


def top_k(population: Population, n: int, seed: int) -> Draw:
    """The n patches of highest entropy."""
    return np.argsort(-population.entropy, kind="stable")[:n], None


def top_k_per_stratum(population: Population, n: int, seed: int) -> Draw:
    """The patches of highest entropy, equal numbers per stratum."""
    counts = allocate(np.bincount(population.stratum), n, power=0.0)
    rank = np.lexsort((-population.entropy, population.stratum))
    start = np.searchsorted(population.stratum[rank], np.arange(len(counts)))
    return np.concatenate([rank[s : s + n_h] for s, n_h in zip(start, counts, strict=True)]), None


def _counts(population: Population, n: int, S: Array | None) -> Array:
    N_h = np.bincount(population.stratum)
    floor = np.minimum(min(FLOOR, n // (2 * len(N_h))), N_h)
    return allocate(N_h, n, power=0.5, floor=floor, spread=S)


def strata_only(population: Population, n: int, seed: int) -> Draw:
    """Ours without information: power ½ and floor, equal sizes."""
    return within_strata(population, _counts(population, n, None), np.ones(len(population.entropy)), seed)


def _ours(population: Population, n: int, seed: int, entropy: Array, mass: Array) -> Draw:
    one, group = np.ones(len(entropy)), population.stratum
    S = spread(population.entropy, group, int(group.max()) + 1)
    return within_strata(population, _counts(population, n, S), sizes(entropy, mass, one, 1.0, group), seed)


def duplicates(population: Population) -> Array:
    """m of each patch, with π₁ = 1."""
    return near_duplicates(population.descriptor, population.stratum, np.ones(len(population.entropy)))


def entropy_sizes(population: Population, n: int, seed: int) -> Draw:
    """Strata, power ½ · S_h, floor, πps ∝ clip(entropy)."""
    return _ours(population, n, seed, population.entropy, np.ones(len(population.entropy)))


def duplicate_sizes(population: Population, n: int, seed: int) -> Draw:
    """Strata, power ½ · S_h, floor, πps ∝ clip(1 / √m)."""
    return _ours(population, n, seed, np.ones(len(population.entropy)), duplicates(population))


def both_sizes(population: Population, n: int, seed: int) -> Draw:
    """Strata, power ½ · S_h, floor, πps ∝ clip(entropy / √m)."""
    return _ours(population, n, seed, population.entropy, duplicates(population))


def _local(population: Population, counts: Array, size: Array, seed: int) -> Draw:
    """A πps draw in every stratum by the local pivotal method in the space of descriptors."""
    chosen, given = [], []
    for h, n_h in enumerate(counts):
        rows = np.flatnonzero(population.stratum == h)
        pi = capped_probabilities(size[rows], int(n_h)) if n_h else np.zeros(rows.size)
        drawn = draw(
            pi,
            method="local",
            seed=seed,
            purpose=f"stratum/{h}",
            ids=rows.astype(np.uint64),
            coordinates=population.descriptor[rows],
        )
        chosen.append(rows[drawn])
        given.append(pi[drawn])
    return np.concatenate(chosen), np.concatenate(given)


def local_equal(population: Population, n: int, seed: int) -> Draw:
    """Strata and power ½, equal sizes, drawn apart in the space of descriptors."""
    return _local(population, _counts(population, n, None), np.ones(len(population.entropy)), seed)


def local_both(population: Population, n: int, seed: int) -> Draw:
    """Sizes of both, drawn apart in the space of descriptors."""
    one, group = np.ones(len(population.entropy)), population.stratum
    S = spread(population.entropy, group, int(group.max()) + 1)
    size = sizes(population.entropy, duplicates(population), one, 1.0, group)
    return _local(population, _counts(population, n, S), size, seed)


def local_duplicates(population: Population, n: int, seed: int) -> Draw:
    """Power ½ with the spread of descriptors as S_h, sizes 1/√m, drawn apart in the space of descriptors."""
    one, group = np.ones(len(population.entropy)), population.stratum
    S = spread(population.descriptor, group, int(group.max()) + 1)
    return _local(population, _counts(population, n, S), sizes(one, duplicates(population), one, 1.0, group), seed)


DESIGNS: dict[str, tuple[Design, bool]] = {
    "random": (random, True),
    "equal per stratum": (land_cover_only, True),
    "entropy only, πps": (entropy_only, True),
    "k-means, nearest to centroid": (k_means, True),
    "top-K entropy": (top_k, False),
    "top-K entropy per stratum": (top_k_per_stratum, False),
    "strata, power ½": (strata_only, True),
    "strata, size entropy": (entropy_sizes, True),
    "strata, size 1/√m": (duplicate_sizes, True),
    "strata, size entropy/√m": (both_sizes, True),
    "strata, power ½, drawn apart": (local_equal, True),
    "size entropy/√m, drawn apart": (local_both, True),
    "size 1/√m, drawn apart": (local_duplicates, True),
}
"""Name → (design, whether its draws differ by seed)."""


def measure(population: Population, drawn: Array) -> dict[str, float]:
    """What is read off one selection."""
    distance, own = cdist(population.features, population.features[drawn]).min(axis=1), population.descriptor
    N_h = np.bincount(population.stratum)
    near = KDTree(own[drawn]).query(own[drawn], k=2)[0][:, 1]
    pooled = population.histogram[drawn].sum(axis=0)
    p = pooled / pooled.sum(axis=1, keepdims=True)
    return {
        "mean distance": distance.mean(),
        "macro distance": float(np.mean(np.bincount(population.stratum, weights=distance) / N_h)),
        "radius": distance.max(),
        "descriptor distance": cdist(own, own[drawn]).min(axis=1).mean(),
        "strata present": float(np.mean(np.bincount(population.stratum[drawn], minlength=len(N_h)) >= ENOUGH)),
        "near-duplicates": float(np.mean(near <= RADIUS)),
        "same place": float(1 - len(np.unique(population.ground[drawn])) / len(drawn)),
        "set entropy": float(-(p * np.log2(np.maximum(p, 1e-300))).sum(axis=1).mean()),
    }


def estimates(population: Population, draw: Draw) -> tuple[Array, Array]:
    """Estimated minus true (band means, class shares); weighted by 1/π where there are probabilities."""
    drawn, pi = draw
    w = np.ones(len(drawn)) if pi is None else 1 / pi
    means, shares = (
        (w[:, None] * y[drawn]).sum(axis=0) / w.sum() - y.mean(axis=0)
        for y in (population.descriptor[:, :6], population.shares)
    )
    return means, shares


def run(population: Population, n: int, redraws: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Design → measure → (mean, standard error of redrawing); RMSEs relative to simple random sampling's exact one."""
    result: dict[str, dict[str, tuple[float, float]]] = {}
    errors: dict[str, list[Array]] = {}
    for name, (design, varies) in DESIGNS.items():
        repeats = (redraws if design is not k_means else max(redraws // 10, 2)) if varies else 1
        draws = [design(population, n, seed) for seed in range(repeats)]
        found = [measure(population, drawn) for drawn, _ in draws]
        result[name] = {key: _mean([row[key] for row in found]) for key in found[0]}
        both = [estimates(population, draw) for draw in draws]
        errors[name] = [np.stack([pair[i] for pair in both]) for i in (0, 1)]
    for i, key in enumerate(("rmse of band means", "rmse of shares")):
        variance = _random_variance((population.descriptor[:, :6], population.shares)[i], n)
        for name, error in errors.items():
            mean, se = _mean((error[i] ** 2 / variance).mean(axis=1).tolist())
            result[name][key] = (float(np.sqrt(mean)), se / (2 * float(np.sqrt(mean))))
    return result


def _random_variance(y: Array, n: int) -> Array:
    """Variance of the mean of a simple random sample; 1 for what never occurs."""
    variance = (1 - n / len(y)) * y.var(axis=0, ddof=1) / n
    return np.where(variance > 0, variance, 1.0)


def _mean(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values) / np.sqrt(max(len(values) - 1, 1)))


def distances(population: Population) -> dict[str, Array]:
    """Distances of descriptors: what RADIUS is read from (cities at two dates)."""
    d, city, ground = population.descriptor, population.stratum, population.ground
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, len(d), (2, 200_000))
    other = city[a] != city[b]
    first = np.unique(ground, return_index=True, return_counts=True)
    pairs = first[1][first[2] == 2]
    second = np.array([np.flatnonzero(ground == ground[i])[1] for i in pairs])
    return {
        "another city": np.linalg.norm(d[a[other]] - d[b[other]], axis=1),
        "same place, other date": np.linalg.norm(d[pairs] - d[second], axis=1),
    }


def half_overlaps(folder: Path, edge: int = 64) -> Array:
    """Distances of descriptors of patches that share half of their pixels, both of one date."""
    whole, shifted = oscd(folder, edge), []
    by_key = {(o & 1, g): i for i, (o, g) in enumerate(zip(whole.order, whole.ground, strict=True))}
    for (date, g), i in by_key.items():
        right = by_key.get((date, g + edge))
        if right is not None:
            middle = np.concatenate([whole.pixels[i][..., edge // 2 :], whole.pixels[right][..., : edge // 2]], axis=-1)
            small = middle[None, :, 2::4, 2::4]
            shifted.append(np.linalg.norm(descriptors(small, (small != -9999).all(axis=1))[0] - whole.descriptor[i]))
    return np.array(shifted)


def resolution(population: Population) -> dict[int, tuple[float, float, float]]:
    """Pixels per edge → correlation and bias of the entropy beside all pixels, median distance of the descriptor."""
    valid = (population.pixels != -9999).all(axis=1)
    whole, all_of_it = spectral_entropies(population.pixels, valid), descriptors(population.pixels, valid)
    result = {}
    for step in (8, 4, 2):
        place = np.s_[..., step // 2 :: step, step // 2 :: step]
        part = spectral_entropies(population.pixels[place], valid[place])
        away = np.linalg.norm(descriptors(population.pixels[place], valid[place]) - all_of_it, axis=1)
        good = ~np.isnan(part)
        fit = np.corrcoef(part[good], whole[good])[0, 1]
        edge = population.pixels.shape[-1] // step
        result[edge] = (float(fit), float((part - whole)[good].mean()), float(np.median(away[good])))
    return result


def show(name: str, n: int, found: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Print one table."""
    keys = list(next(iter(found.values())))
    print(f"\n{name}, n = {n}\n| design | " + " | ".join(keys) + " |\n|" + "---|" * (len(keys) + 1))
    for design, row in found.items():
        print(f"| {design} | " + " | ".join(f"{row[k][0]:.3f} ± {row[k][1]:.3f}" for k in keys) + " |", flush=True)


HYPOTHESES = (
    ("H1, distance of 1/√m drawn apart is lower", "size 1/√m, drawn apart", "mean distance", -1),
    ("H1, error of means of 1/√m drawn apart is lower", "size 1/√m, drawn apart", "rmse of band means", -1),
    ("H2, error of means of entropy/√m is higher", "strata, size entropy/√m", "rmse of band means", 1),
)
"""What a confirming run asks, always beside strata with power ½: words, design, measure, expected sign."""


def confirm(found: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Print the difference of each hypothesis with its standard error of redrawing; it holds beyond two of them."""
    for words, design, key, sign in HYPOTHESES:
        (a, one), (b, other) = found[design][key], found["strata, power ½"][key]
        se = float(np.hypot(one, other))
        verdict = "holds" if sign * (a - b) > 2 * se else "the opposite holds" if sign * (b - a) > 2 * se else "open"
        print(f"{words}: {a - b:+.4f} ± {se:.4f}: {verdict}", flush=True)


def first_run(data: Path) -> tuple[list[tuple[Population, tuple[int, ...]]], dict[str, Array]]:
    """Populations and n of the first run, and the distances that RADIUS is read from, with what is printed of them."""
    cities, labelled = data / "imagery/oscd-20m", data / "labelled/gewata"
    work = [(oscd(cities), (32, 64, 128)), (gewata(labelled, 32), (32, 64, 128)), (gewata(labelled, 64), (16, 32, 64))]
    far = {**distances(work[0][0]), "half of the pixels shared": half_overlaps(cities)}
    for key, values in far.items():
        quantiles = np.percentile(values, [1, 10, 25, 50, 75, 90]).round(4)
        print(f"{key}: {len(values)} pairs, quantiles {quantiles}, within RADIUS {np.mean(values <= RADIUS):.4f}")
    for edge, (fit, bias, away) in resolution(work[0][0]).items():
        print(f"{edge} px an edge: entropy r = {fit:.4f}, bias {bias:+.3f} bits; descriptor off by {away:.4f}")
    return work, far


def fresh_run(data: Path, names: list[str]) -> list[tuple[Population, tuple[int, ...]]]:
    """Populations that the first run did not see; n is a sixth and a third of each."""
    found = [FRESH[name](data) for name in names]
    return [(population, (round(len(population.order) / 6), round(len(population.order) / 3))) for population in found]


def main() -> None:
    """Run all populations and sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--redraws", type=int, default=200)
    parser.add_argument("--population", nargs="+", choices=list(FRESH), help="confirm on these, not the first ones")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    work, far = (fresh_run(options.data, options.population), {}) if options.population else first_run(options.data)
    results = {}
    for population, numbers in work:
        print(f"\n{population.name}: {len(population.entropy)} patches", np.bincount(population.stratum).tolist())
        for n in numbers:
            found = run(population, n, options.redraws)
            show(population.name, n, found)
            if options.population:
                confirm(found)
            results[f"{population.name}, n={n}"] = found
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.pictures and far:
        from coverage_pictures import draw_pictures

        draw_pictures(options.pictures, work[0][0], far, results)


if __name__ == "__main__":
    main()
