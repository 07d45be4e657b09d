"""Inclusion probabilities from sizes, and their whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_sampling.probabilities import ONE, capped_probabilities, checked_probabilities, whole_shares

SIZES = st.lists(st.one_of(st.integers(1, 5).map(float), st.floats(1e-6, 1e6)), min_size=1, max_size=40)


def capped_one_by_one(sizes: list[float], draws: int) -> list[Fraction]:
    """The textbook procedure in fractions: fix all that exceed 1, share the rest out again, until none does."""
    size = [Fraction(s) for s in sizes]
    certain: set[int] = set()
    while True:
        rest = sum(s for i, s in enumerate(size) if i not in certain)
        pi = [Fraction(1) if i in certain else (draws - len(certain)) * s / rest for i, s in enumerate(size)]
        more = {i for i, p in enumerate(pi) if p >= 1} - certain
        if not more:
            return pi
        certain |= more


@given(SIZES, st.data())
def test_agrees_with_capping_one_by_one(sizes: list[float], data: st.DataObject) -> None:
    """Probabilities equal those of the textbook's iteration in fractions to 10⁻¹², and sum to the draws."""
    draws = data.draw(st.integers(1, len(sizes)))
    pi = capped_probabilities(sizes, draws)
    assert pi == pytest.approx([float(p) for p in capped_one_by_one(sizes, draws)], rel=1e-12)
    assert pi.sum() == pytest.approx(draws, abs=1e-12 * len(sizes))
    assert np.all((pi > 0) & (pi <= 1))


@given(SIZES, st.data())
def test_depends_on_ratios_only(sizes: list[float], data: st.DataObject) -> None:
    """Another unit of size or another order of units changes no probability; larger sizes never get less."""
    draws = data.draw(st.integers(1, len(sizes)))
    pi = capped_probabilities(sizes, draws)
    assert capped_probabilities(np.multiply(sizes, 2.0**40), draws).tolist() == pi.tolist()
    order = np.array(data.draw(st.permutations(range(len(sizes)))))
    assert capped_probabilities(np.array(sizes)[order], draws).tolist() == pi[order].tolist()
    assert np.all(np.diff(pi[np.argsort(sizes, kind="stable")]) >= 0)


def test_worked_example() -> None:
    """Of sizes 1, 1, 2, 16 two are drawn: the last is certain, the others share one draw by size."""
    assert capped_probabilities([1, 1, 2, 16], 2).tolist() == [0.25, 0.25, 0.5, 1.0]
    assert capped_probabilities([1, 1, 1], 3).tolist() == [1, 1, 1]
    assert capped_probabilities([5, 0], 0).tolist() == [0, 0]
    assert capped_probabilities([], 0).tolist() == []
    assert capped_probabilities([3, 3, 1, 1], 3).tolist() == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("sizes", "draws", "words"),
    [
        ([1, 0, 2], 1, "could never be drawn"),
        ([1, -2, 2], 1, "-2.0 at position 1"),
        ([1, -2, 2], 0, "-2.0 at position 1"),
        ([1, float("nan")], 1, "finite"),
        ([1, float("inf")], 1, "finite"),
        ([[1, 2]], 1, "one finite number per unit"),
        ([1, 2], 3, "cannot draw 3 units of 2"),
        ([1, 2], -1, "cannot draw -1"),
        ([1e-200, 1e200, 1.0], 1, "clip the sizes"),
    ],
)
def test_impossible_sizes_are_refused(sizes: list[float], draws: int, words: str) -> None:
    """No size yields a probability of zero, NaN or above one; the message says what to do."""
    with pytest.raises(ValueError, match=words):
        capped_probabilities(sizes, draws)


@given(SIZES, st.data())
def test_whole_shares_sum_exactly(sizes: list[float], data: st.DataObject) -> None:
    """The words of the open units sum to draws · 2⁶⁴ as whole numbers, and no probability moved beyond rounding."""
    draws = data.draw(st.integers(0, len(sizes)))
    pi = capped_probabilities(sizes, draws)
    shares = whole_shares(pi)
    words = [int(word) for word in shares.words]
    assert sum(words) == shares.draws * ONE
    assert shares.certain.size + shares.draws == draws
    assert all(word > 0 for word in words)
    assert np.array(words, dtype=float) / ONE == pytest.approx(pi[shares.open], rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("count", [3, 7, 10, 1_000_000])
def test_sums_that_floats_miss_are_made_whole(count: int) -> None:
    """1/count of count units sums to 1 only in fractions; the shares do so in words, each within 10⁻¹²."""
    shares = whole_shares(np.full(count, 1 / count))
    assert sum(map(int, shares.words)) == ONE
    assert np.abs(shares.words.astype(float) / ONE - 1 / count).max() < 1e-12


@pytest.mark.parametrize("pi", [[1 - 1e-16, 1e-9, 1 - 1e-9], [1e-12, 1 - 1e-12], [1 - 2e-12, 1e-12, 1e-12, 1], [1e-10]])
def test_nearly_certain_and_nearly_impossible_units(pi: list[float]) -> None:
    """Extreme probabilities keep the sum whole; what is within rounding of 1 is certain."""
    shares = whole_shares(pi)
    assert sum(map(int, shares.words)) == shares.draws * ONE
    assert shares.certain.size + shares.draws == round(sum(pi))


@pytest.mark.parametrize("pi", [[0.5, 0.4], [0.5, 0.5 + 1e-8], [1.0, 0.3]])
def test_a_sum_that_is_not_whole_is_refused(pi: list[float]) -> None:
    """A fixed size needs a whole sum; the message gives the sum and the remedy."""
    with pytest.raises(ValueError, match=r"probabilities sum to \d\.\d+: a sample of fixed size"):
        whole_shares(pi)


@pytest.mark.parametrize(
    ("pi", "words"),
    [
        ([0.5, float("nan")], "none NaN"),
        ([1.5], "from 0 to 1"),
        ([-0.1], "from 0 to 1"),
        ([[0.5]], "one number"),
        ([0.0, 1.0], "1 of 2 units have probability 0"),
    ],
)
def test_impossible_probabilities_are_refused(pi: list[float], words: str) -> None:
    """A unit of probability zero among others is an error, not a silent exclusion."""
    with pytest.raises(ValueError, match=words):
        checked_probabilities(pi)
    assert checked_probabilities([0, 0]).tolist() == [0, 0]
