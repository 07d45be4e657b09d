"""Every design through one door: probabilities, sizes, exact sample distributions, errors."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from geofm_sampling.draws import EXACT, METHODS, draw, ranks_random
from geofm_sampling.probabilities import capped_probabilities

RNG = np.random.default_rng(11)
IDS = RNG.permutation(1_000)[:24].astype(np.uint64)
PLACES = RNG.random((24, 2))
PI = capped_probabilities(RNG.lognormal(0, 1, 24), 9)
FIXED = tuple(method for method in METHODS if method != "poisson")


def drawn(method: str, pi: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    n = pi.size
    return draw(pi, method=method, seed=seed, purpose="test", ids=IDS[:n], coordinates=PLACES[:n])


def frequencies(method: str, pi: NDArray[np.float64], draws: int) -> NDArray[np.int64]:
    counts = np.zeros(pi.size, dtype=np.int64)
    for seed in range(draws):
        counts[drawn(method, pi, seed)] += 1
    return counts


def fits(counts: NDArray[np.int64], draws: int, pi: NDArray[np.float64]) -> bool:
    """Whether no count is beyond its two-sided binomial limit, α = 10⁻³ for all together (Bonferroni)."""
    law = stats.binom(draws, pi)
    return bool(np.all(2 * np.minimum(law.cdf(counts), law.sf(counts - 1)) > 1e-3 / pi.size))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("random", "pareto")])
def test_every_unit_has_its_probability(method: str) -> None:
    """Over 2,500 seeds, inclusion frequencies of the exact designs fit π (four families, α = 10⁻³ each)."""
    assert fits(frequencies(method, PI, 2_500), 2_500, PI)


@pytest.mark.parametrize("method", METHODS)
def test_every_unit_has_its_equal_probability(method: str) -> None:
    """With π = 3/8 for all, every design gives it to every unit (six families, α = 10⁻³ each)."""
    equal = np.full(24, 0.375)
    assert fits(frequencies(method, equal, 2_000), 2_000, equal)


@given(st.sampled_from(FIXED), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=24), st.data())
def test_designs_of_fixed_size_keep_it(method: str, sizes: list[float], data: st.DataObject) -> None:
    """The number drawn is the sum of π, positions ascend, and certain units are in, always."""
    n = data.draw(st.integers(0, len(sizes)))
    equal = method == "random"
    pi = np.full(len(sizes), n / len(sizes)) if equal else capped_probabilities(sizes, n)
    got = draw(
        pi,
        method=method,
        seed=data.draw(st.integers(0, 2**64 - 1)),
        purpose="test",
        ids=IDS[: pi.size],
        coordinates=PLACES[: pi.size],
    )
    assert got.size == n
    assert np.all(np.diff(got) > 0)
    assert set(np.flatnonzero(pi == 1)) <= set(got.tolist())


@given(st.sampled_from(["random", "poisson", "pareto", "local"]), st.permutations(range(24)), st.integers(0, 50))
def test_the_order_of_rows_changes_nothing(method: str, order: list[int], seed: int) -> None:
    """Designs that do not follow a list draw the same units whatever the order of the rows."""
    pi = np.full(24, 0.25) if method == "random" else PI
    there = draw(pi, method=method, seed=seed, purpose="test", ids=IDS, coordinates=PLACES)
    here = draw(pi[order], method=method, seed=seed, purpose="test", ids=IDS[order], coordinates=PLACES[order])
    assert set(IDS[there]) == set(IDS[order][here])


def test_simple_random_samples_are_all_equally_probable() -> None:
    """Each of the 20 sets of 3 of 6 units is drawn equally often over 6,000 seeds (χ², α = 10⁻³)."""
    seen = Counter(tuple(drawn("random", np.full(6, 0.5), seed).tolist()) for seed in range(6_000))
    sets = list(itertools.combinations(range(6), 3))
    assert set(seen) == set(sets)
    assert stats.chisquare([seen[s] for s in sets]).pvalue > 1e-3


def test_systematic_samples_have_the_probabilities_of_their_starts() -> None:
    """π = ¼, ½, ¾, ½ give the samples of four stretches of starts and no other (χ², α = 10⁻³)."""
    pi = np.array([0.25, 0.5, 0.75, 0.5])  # ends at 1/4, 3/4, 3/2, 2
    seen = Counter(tuple(drawn("systematic", pi, seed).tolist()) for seed in range(4_000))
    exact = {(0, 2): 0.25, (1, 2): 0.25, (1, 3): 0.25, (2, 3): 0.25}
    assert set(seen) == set(exact)
    assert stats.chisquare([seen[s] for s in exact], [4_000 * p for p in exact.values()]).pvalue > 1e-3


def test_poisson_units_are_independent() -> None:
    """Every pair is drawn together as often as π_i π_j says (binomial limits of all pairs, α = 10⁻³)."""
    together = np.zeros((24, 24), dtype=np.int64)
    for seed in range(2_000):
        one = np.zeros(24, dtype=np.int64)
        one[drawn("poisson", PI, seed)] = 1
        together += np.outer(one, one)
    pairs = np.triu_indices(24, 1)
    assert fits(together[pairs], 2_000, np.outer(PI, PI)[pairs])


def pareto_truth(pi: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """True inclusion probabilities of Pareto sampling: one unit's ranking number is below all but n − 1 others'.

    The ranking number of a unit with odds o has the distribution t·o / (1 + t·o); the integral over it is taken with
    t = x / (1 − x), the number of others below t is Poisson-binomial.
    """
    odds = pi / (1 - pi)

    def below(t: float) -> NDArray[np.float64]:
        return t * odds / (1 + t * odds)

    def density(x: float, unit: int) -> float:
        t = x / (1 - x)
        count = np.array([1.0])
        for p in np.delete(below(t), unit):
            count = np.convolve(count, [1 - p, p])
        return float(odds[unit] / (1 + t * odds[unit]) ** 2 * count[:n].sum() / (1 - x) ** 2)

    return np.array([integrate.quad(density, 0, 1, args=(unit,))[0] for unit in range(pi.size)])


def test_pareto_is_approximate_as_labelled() -> None:
    """Frequencies fit the true probabilities of Pareto sampling (α = 10⁻³), which are near π but not π."""
    pi = capped_probabilities([1, 1, 1, 9], 1)
    truth = pareto_truth(pi, 1)
    assert truth.sum() == pytest.approx(1, abs=1e-6)
    assert 0.25 < np.abs(truth / pi - 1).max() < 0.30
    counts = frequencies("pareto", pi, 5_000)
    assert fits(counts, 5_000, truth)
    assert not fits(counts, 5_000, pi)


@pytest.mark.parametrize(("size", "draws"), [(5, 2), (8, 1), (12, 4)])
def test_pareto_comes_near_with_the_size_of_the_sample(size: int, draws: int) -> None:
    """True probabilities differ from π by less than 0.15 / Σπ(1 − π) of themselves."""
    pi = capped_probabilities(np.random.default_rng(size).lognormal(0, 0.7, size), draws)
    assert pi.max() < 1
    assert np.abs(pareto_truth(pi, draws) / pi - 1).max() < 0.15 / (pi * (1 - pi)).sum()


def test_prefixes_of_a_random_order_are_simple_random_samples() -> None:
    """The sets of the first two of five units are equally probable over 4,000 seeds (χ², α = 10⁻³)."""
    seen = Counter(tuple(sorted(ranks_random(IDS[:5], seed=s, purpose="test")[:2].tolist())) for s in range(4_000))
    assert stats.chisquare([seen[pair] for pair in itertools.combinations(range(5), 2)]).pvalue > 1e-3


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30, unique=True), st.integers(0, 2**63))
def test_units_keep_their_random_order_when_others_leave(ids: list[int], seed: int) -> None:
    """Taking units away leaves the order of the rest as it was."""
    unit = np.array(ids, dtype=np.uint64)
    order = unit[ranks_random(unit, seed=seed, purpose="test")]
    rest = unit[::2]
    assert rest[ranks_random(rest, seed=seed, purpose="test")].tolist() == order[np.isin(order, rest)].tolist()


def test_seed_and_purpose_are_separate_streams() -> None:
    """Another seed or purpose gives another draw; the same gives the same."""
    for method in METHODS:
        pi = np.full(24, 0.5)
        first = drawn(method, pi, 0).tolist()
        assert first == drawn(method, pi, 0).tolist()
        others = [draw(pi, method=method, seed=0, purpose=f"{k}", ids=IDS, coordinates=PLACES) for k in range(40)]
        assert any(first != other.tolist() for other in others)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_draw(method: str) -> None:
    """No units, or probabilities all zero, give an empty draw."""
    assert drawn(method, np.zeros(24), 0).tolist() == []
    none = draw([], method=method, seed=0, purpose="test", ids=[], coordinates=np.zeros((0, 2)))
    assert none.tolist() == []
    assert none.dtype == np.int64


def test_every_method_says_how_exact_it_is() -> None:
    """The words of EXACT cover METHODS, and only Pareto is approximate."""
    assert tuple(EXACT) == METHODS
    assert [m for m in METHODS if not EXACT[m].startswith("exact")] == ["pareto"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "best"}, "'best' is unknown: use one of random, systematic"),
        ({"probabilities": [0.5, 0.7, 0.8]}, "equal probabilities, got 0.5 to 0.8"),
        ({"method": "pivotal", "probabilities": [0.5, 0.7, 0.3]}, "sum to 1.500000000"),
        ({"method": "poisson", "probabilities": [0.5, 0.7, 0.0]}, "probability 0"),
        ({"method": "poisson", "probabilities": [0.5, 0.7, float("nan")]}, "NaN"),
        ({"ids": [1, 2, 2]}, "each unit once"),
        ({"ids": [1, 2]}, "one per unit"),
        ({"ids": [1, 2, -3]}, "whole numbers"),
        ({"ids": [1.0, 2.0, 3.0]}, "whole numbers"),
        ({"method": "local", "coordinates": None}, "needs coordinates"),
        ({"method": "local", "coordinates": [[0.0], [1.0]]}, r"shape \(3, d\)"),
        ({"method": "local", "coordinates": [[0.0], [1.0], [float("nan")]]}, "finite"),
    ],
)
def test_impossible_draws_are_refused(options: dict, words: str) -> None:
    """What cannot be drawn is an error that says why, never a wrong probability."""
    usual = {"probabilities": [2 / 3] * 3, "method": "random", "ids": [5, 6, 7], "coordinates": [[0.0], [1.0], [3.0]]}
    with pytest.raises(ValueError, match=words):
        draw(**{**usual, **options}, seed=0, purpose="test")
