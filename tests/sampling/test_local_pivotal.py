"""The local pivotal method: the rounds against one fight at a time, balance, ties, size."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

from geofm_sampling import local_pivotal as module
from geofm_sampling.hilbert import hilbert_index
from geofm_sampling.local_pivotal import local_pivotal
from geofm_sampling.pivotal import balanced_order, ordered_pivotal
from geofm_sampling.probabilities import capped_probabilities, whole_shares

Places = NDArray[np.float64]


def draw(pi: NDArray[np.float64], places: Places, seed: int) -> NDArray[np.int64]:
    return local_pivotal(pi, places, ids=np.arange(pi.size, dtype=np.uint64), seed=seed, purpose="test")


def nearest(places: Places, alive: list[int], i: int) -> int:
    return min((j for j in alive if j != i), key=lambda j: float(((places[i] - places[j]) ** 2).sum()))


def lpm1(pi: list[Fraction], places: Places) -> dict[tuple[int, ...], Fraction]:
    """Exact probability of every sample of LPM 1 as published: each step takes any mutual pair, all equally probable.

    Picking a unit at random and starting over unless it is in a mutual pair is picking a mutual pair at random.
    """
    result: Counter[tuple[int, ...]] = Counter()

    def play(left: dict[int, Fraction], drawn: tuple[int, ...], p: Fraction) -> None:
        if not left or p == 0:
            result[tuple(sorted(drawn))] += p
            return
        near = {i: nearest(places, list(left), i) for i in left}
        mutual = [(i, j) for i, j in near.items() if i < j and near[j] == i]
        for i, j in mutual:
            share = p / len(mutual)
            for one, other in ((i, j), (j, i)):
                a, b = left[one], left[other]
                rest = {k: v for k, v in left.items() if k not in (i, j)}
                if a + b < 1:
                    play({**rest, one: a + b}, drawn, share * a / (a + b))
                else:
                    kept = {**rest, other: a + b - 1} if a + b > 1 else rest
                    play(kept, (*drawn, one), share * (1 - b) / (2 - a - b))

    play(dict(enumerate(pi)), (), Fraction(1))
    return dict(result)


POPULATIONS = [
    ("1/2 1/2 1/2 1/2", [0.0, 1.0, 3.0, 7.0]),
    ("1/4 1/4 1/4 1/4", [0.0, 1.0, 3.0, 4.5]),
    ("1/8 3/4 1/2 1/4 3/8", [0.0, 1.0, 1.9, 5.0, 5.5]),
    ("3/4 3/4 1/4 3/4 1/2", [0.0, 2.0, 3.1, 4.0, 9.0]),
    ("1/2 3/8 5/8 1/4 3/4 1/2", [0.0, 1.0, 3.0, 3.9, 7.0, 7.2]),
]


@pytest.mark.parametrize(("text", "line"), POPULATIONS)
def test_rounds_have_the_distribution_of_the_published_method(text: str, line: list[float]) -> None:
    """Over 3,000 seeds the frequency of every sample fits LPM 1's exact probability (five χ² tests, α = 10⁻³ each)."""
    pi, places = [Fraction(word) for word in text.split()], np.array(line)[:, None]
    exact = {sample: p for sample, p in lpm1(pi, places).items() if p}
    assert sum(exact.values()) == 1
    seen = Counter(tuple(draw(np.array(pi, dtype=float), places, seed).tolist()) for seed in range(3_000))
    assert set(seen) <= set(exact)
    expected = np.array([float(p) for p in exact.values()]) * 3_000
    observed = np.array([seen[sample] for sample in exact])
    often = expected >= 5
    groups = [np.append(v[often], v[~often].sum()) if not often.all() else v for v in (observed, expected)]
    assert stats.chisquare(*groups).pvalue > 1e-3


@given(st.integers(2, 40), st.integers(0, 10_000))
def test_one_fight_at_a_time_in_any_order_draws_the_same_units(size: int, seed: int) -> None:
    """The module's proof, to the unit: the same lots, fought singly in random order, end in the same sample."""
    rng = np.random.default_rng(seed)
    pi = capped_probabilities(rng.lognormal(0, 1, size), int(rng.integers(1, size)))
    places = rng.random((size, 2))
    ids = np.arange(size, dtype=np.uint64)
    shares = whole_shares(pi)
    ring = module._Ring(shares.words, ids[shares.open], seed, "test")
    blurred = module._blurred(module._normalised(places, size)[shares.open], ring.key)
    while (left := np.flatnonzero(ring.words).tolist()) and len(left) > 1:
        i = int(rng.choice(left))
        j = nearest(blurred, left, i)
        if nearest(blurred, left, j) == i:
            ring.fight(np.array([i]), np.array([j]))
    singly = np.sort(np.concatenate([shares.certain, shares.open[ring.drawn]]))
    assert draw(pi, places, seed).tolist() == singly.tolist()


def test_every_unit_has_its_probability() -> None:
    """Inclusion frequencies over 2,000 seeds: 60 binomial tests, none beyond Bonferroni's bound at α = 10⁻³."""
    rng = np.random.default_rng(4)
    pi, places = capped_probabilities(rng.lognormal(0, 1, 60), 20), rng.random((60, 2))
    counts = np.zeros(60, dtype=int)
    for seed in range(2_000):
        counts[draw(pi, places, seed)] += 1
    law = stats.binom(2_000, pi)
    assert np.all(2 * np.minimum(law.cdf(counts), law.sf(counts - 1)) > 1e-3 / 60)


KINDS = ("random", "grid", "shared", "one place", "growing gaps", "clusters", "far away", "eight axes")


def made(kind: str, size: int, rng: np.random.Generator) -> Places:
    """`size` places of a kind that is hard on nearest neighbours."""
    side = int(np.ceil(np.sqrt(size)))
    if kind == "grid":
        return np.stack(np.divmod(np.arange(size), side), axis=1).astype(float)
    if kind == "far away":  # with the offset in, a shift to break ties would be lost in rounding
        return made("grid", size, rng) + 1e13
    if kind == "shared":  # eight seasons of a cell
        return np.repeat(rng.random((-(-size // 8), 2)), 8, axis=0)[:size]
    if kind == "one place":
        return np.zeros((size, 2))
    if kind == "growing gaps":  # without the blur only the first two are mutual
        return np.cumsum(1 + 1e-5 * np.arange(size))[:, None]
    if kind == "clusters":
        return rng.random((5, 2))[rng.integers(0, 5, size)] + rng.normal(0, 1e-7, (size, 2))
    return rng.random((size, 8 if kind == "eight axes" else 2))


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_fixed_and_order_of_rows_changes_nothing(kind: str) -> None:
    """Whatever the places: the number drawn is the sum of π, and shuffled rows give the same units."""
    rng = np.random.default_rng(5)
    for size, draws in ((2, 1), (3, 1), (50, 7), (2_000, 600)):
        places, ids = made(kind, size, rng), rng.permutation(size * 9)[:size].astype(np.uint64)
        pi = capped_probabilities(rng.lognormal(0, 1, size), draws)
        order = rng.permutation(size)
        here = local_pivotal(pi, places, ids=ids, seed=1, purpose="test")
        there = local_pivotal(pi[order], places[order], ids=ids[order], seed=1, purpose="test")
        assert here.size == draws == np.unique(here).size
        assert np.all(np.diff(here) > 0)
        assert set(ids[here]) == set(ids[order][there])


@pytest.mark.parametrize("kind", ["random", "grid", "shared", "one place", "growing gaps", "far away"])
def test_two_hundred_thousand_units(kind: str) -> None:
    """Large populations end in few rounds, whatever their places."""
    rng = np.random.default_rng(6)
    places = made(kind, 200_000, rng)
    drawn = draw(np.full(200_000, 0.05), places, 3)
    assert drawn.size == 10_000
    if kind == "shared":  # 25,000 cells of eight units: Σπ of a cell is 0.4, so no cell is drawn twice
        assert np.unique(drawn // 8).size == 10_000


@given(st.integers(-900, 400), st.integers(0, 20))
def test_the_unit_of_length_changes_nothing(exponent: int, seed: int) -> None:
    """Places in metres, kilometres or any other power-of-two unit give the same draw."""
    places, pi = np.random.default_rng(9).random((40, 2)), np.full(40, 0.25)
    assert draw(pi, places * 2.0**exponent, seed).tolist() == draw(pi, places, seed).tolist()


def test_units_at_one_place_are_not_drawn_together() -> None:
    """Where the probabilities at a place sum to 1, exactly one of its units is drawn."""
    places = np.repeat(np.random.default_rng(7).random((50, 2)), 4, axis=0)
    for seed in range(20):
        assert np.array_equal(draw(np.full(200, 0.25), places, seed) // 4, np.arange(50))


def test_a_circle_of_equal_distances_makes_progress() -> None:
    """Neighbours that chase each other, as equal distances could make them, still yield a pair."""
    assert module._mutual(np.array([1, 2, 0]), np.ones(3, dtype=np.bool_)).tolist() == [0]


def voronoi(places: Places, pi: NDArray[np.float64], sample: NDArray[np.int64]) -> float:
    """Spatial balance of Stevens & Olsen (2004): variance of Σπ over the Voronoi cells of the sample, ideally 0."""
    cell = cKDTree(places[sample]).query(places)[1]
    return float(np.var(np.bincount(cell, weights=pi, minlength=sample.size)))


@pytest.mark.parametrize("equal", [True, False])
def test_samples_are_spatially_balanced(equal: bool) -> None:
    """The Voronoi variance, mean of 30 draws, is below 0.35 of that of draws without regard to place.

    0.25 to 0.30 was observed; simple random samples for equal, Poisson-like (Pareto) samples for unequal π.
    """
    rng = np.random.default_rng(8)
    places = rng.random((1_500, 2))
    pi = np.full(1_500, 0.04) if equal else capped_probabilities(rng.lognormal(0, 0.7, 1_500), 60)
    ours = [voronoi(places, pi, draw(pi, places, seed)) for seed in range(30)]
    rank = [(u := rng.random(1_500)) * (1 - pi) / ((1 - u) * pi) for _ in range(30)]
    blind = [voronoi(places, pi, np.argsort(r)[:60]) for r in rank]
    assert np.mean(ours) < 0.35 * np.mean(blind)


def test_balance_is_better_than_along_a_curve_and_both_than_random() -> None:
    """Voronoi variance on a grid of 48 × 48: local pivotal < prefixes along a Hilbert curve < simple random.

    Means of 30 draws; 0.21 and 0.33 of simple random were observed.
    """
    y, x = np.divmod(np.arange(48 * 48), 48)
    places, pi = np.stack([x, y], axis=1).astype(float), np.full(48 * 48, 48 / 48**2)
    along = np.argsort(hilbert_index(x, y, order=6))
    local, curve, simple = [], [], []
    for seed in range(30):
        master = ordered_pivotal(population=pi.size, draws=400, seed=seed, purpose="test")
        prefix = along[master[balanced_order(400, seed=seed, purpose="rank")[:48]]]
        local.append(voronoi(places, pi, draw(pi, places, seed)))
        curve.append(voronoi(places, pi, prefix))
        simple.append(voronoi(places, pi, np.random.default_rng(seed).choice(pi.size, 48, replace=False)))
    assert np.mean(local) < np.mean(curve) < 0.6 * np.mean(simple)


def test_neighbours_are_rarely_drawn_together() -> None:
    """On a grid with π = ¼ neighbours are drawn together less than half as often as if drawn independently."""
    places = np.stack(np.divmod(np.arange(400), 20), axis=1).astype(float)
    right = [(i, i + 1) for i in range(400) if i % 20 < 19]
    pairs = right + [(i, i + 20) for i in range(380)]
    first, second = np.array(pairs).T
    together = 0
    for seed in range(60):
        one = np.isin(np.arange(400), draw(np.full(400, 0.25), places, seed))
        together += int((one[first] & one[second]).sum())
    assert together / (60 * first.size) < 0.5 / 16
