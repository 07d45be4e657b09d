"""Trimming and raking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_sampling.calibration import Margin, expanded_totals, rake, trim


def weights_and_groups(data: st.DataObject) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    n = data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = np.exp(rng.normal(0, 2, n)) * (rng.random(n) > 0.1)
    return weights, rng.integers(0, 4, n)


@given(st.data(), st.floats(1, 20))
def test_trimming_keeps_the_sums_of_groups_and_bounds_the_ratio_to_the_median(data: st.DataObject, most: float) -> None:
    """Against a plain loop: sums of groups stay, no weight is above `most` medians, order and zeros stay."""
    weights, group = weights_and_groups(data)
    result = trim(weights, group=group, most=most)
    assert np.bincount(group, weights=result.weights) == pytest.approx(np.bincount(group, weights=weights))
    assert np.array_equal(result.weights == 0, weights == 0)
    capped = 0
    for g in set(group.tolist()):
        before, after = (w[(group == g) & (weights > 0)] for w in (weights, result.weights))
        if before.size:
            assert after.max() <= most * np.sort(after)[after.size // 2] * (1 + 1e-9)
            assert np.all(np.diff(after[np.argsort(before)]) >= -1e-9 * after.max())
            capped += int(np.sum(before > most * np.sort(before)[before.size // 2] * (1 + 1e-12)))
    assert result.trimmed == capped
    assert (result.moved > 0) == (capped > 0)


def test_weights_within_the_bound_are_left_alone() -> None:
    """Nothing to trim changes nothing, to the last bit."""
    weights = np.array([1.0, 2.0, 0.0, 3.0])
    result = trim(weights, group=np.zeros(4, int), most=2.0)
    assert np.array_equal(result.weights, weights)
    assert result.trimmed == 0


def test_impossible_trimming_is_refused() -> None:
    """A cap below the median and weights that are no weights are errors."""
    with pytest.raises(ValueError, match="median"):
        trim(np.ones(3), group=np.zeros(3, int), most=0.5)
    with pytest.raises(ValueError, match="not negative"):
        trim(np.array([1.0, -1.0]), group=np.zeros(2, int))


def world(seed: int, n: int = 400) -> tuple[NDArray[np.float64], list[Margin], NDArray[np.float64]]:
    """Weights of a sample with two margins, and other weights that satisfy them within ratios of 0.5 to 2."""
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(0, 0.5, n))
    a, b = rng.choice(["x", "y", "z"], n), rng.choice(["p", "q"], n)
    truth = weights * np.exp(rng.uniform(np.log(0.5), np.log(2), n))
    margins = [Margin(name=name, labels=v, totals=expanded_totals(v, truth)) for name, v in (("a", a), ("b", b))]
    return weights, margins, truth


@given(st.integers(0, 10_000))
def test_raked_weights_reach_every_total_within_the_bounds(seed: int) -> None:
    """Totals that some weights within the bounds have are reached to the tolerance, and zeros stay zeros."""
    weights, margins, _ = world(seed)
    weights[:5] = 0
    result = rake(weights, margins, bounds=(0.3, 3.0), tolerance=1e-8)
    for margin in margins:
        for label, total in margin.totals.items():
            assert result.weights[margin.labels == label].sum() == pytest.approx(total, rel=1e-7)
    ratio = result.weights[weights > 0] / weights[weights > 0]
    assert ratio.min() == pytest.approx(result.ratio[0])
    assert 0.3 <= result.ratio[0] <= result.ratio[1] <= 3.0
    assert not result.weights[:5].any()
    assert result.empty == ()


@pytest.mark.parametrize("seed", range(5))
def test_wide_bounds_give_iterative_proportional_fitting(seed: int) -> None:
    """With bounds that never bind the ratios are those of plain raking, a product of one factor per label."""
    weights, margins, _ = world(seed)
    result = rake(weights, margins, bounds=(0.0, 1e6), tolerance=1e-10)
    plain = weights.copy()
    for _ in range(200):
        for margin in margins:
            for label, total in margin.totals.items():
                plain[margin.labels == label] *= total / plain[margin.labels == label].sum()
    assert result.weights == pytest.approx(plain, rel=1e-7)


def test_binding_bounds_are_the_truncated_raking_solution() -> None:
    """Where bounds bind, the ratios minimise the raking distance Σ w (g ln g − g + 1) among all that fit.

    Deville & Särndal (1992): checked against a general-purpose optimiser.
    """
    from scipy.optimize import LinearConstraint, minimize

    rng = np.random.default_rng(4)
    weights = rng.uniform(1, 3, 24)
    a, b = np.tile(["x", "y"], 12), np.repeat(["p", "q", "r"], 8)
    target = weights * np.where(a == "x", 1.45, 0.6) * np.where(b == "p", 1.3, 0.95)
    bounds = (0.55, 1.6)
    target = weights * np.clip(target / weights, *bounds)
    margins = [Margin(name=name, labels=v, totals=expanded_totals(v, target)) for name, v in (("a", a), ("b", b))]
    ours = rake(weights, margins, bounds=bounds, tolerance=1e-10)
    assert ours.bounded > 0
    rows = np.stack([weights * (m.labels == label) for m in margins for label in m.totals])
    totals = np.array([total for m in margins for total in m.totals.values()])
    best = minimize(
        lambda g: float((weights * (g * np.log(g) - g + 1)).sum()),
        np.ones(24),
        jac=lambda g: weights * np.log(g),
        bounds=[bounds] * 24,
        constraints=LinearConstraint(rows[:-1], totals[:-1], totals[:-1]),
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert ours.weights / weights == pytest.approx(best.x, abs=1e-4)


def test_totals_out_of_reach_name_the_margin() -> None:
    """A total beyond the bounds, or two margins that contradict each other, say which margin and label."""
    weights, labels = np.ones(10), np.repeat(["x", "y"], 5)
    far = Margin(name="land_cover", labels=labels, totals={"x": 50.0, "y": 5.0})
    with pytest.raises(ValueError, match="land_cover: x cannot be reached"):
        rake(weights, [far])
    one = Margin(name="a", labels=labels, totals={"x": 6.0, "y": 4.0})
    same = Margin(name="b", labels=labels, totals={"x": 4.0, "y": 6.0})
    with pytest.raises(ValueError, match=r"did not reach margin [ab]"):
        rake(weights, [one, same], iterations=20)
    with pytest.raises(ValueError, match="add up to 11"):
        rake(weights, [one, Margin(name="b", labels=labels, totals={"x": 5.0, "y": 6.0})])
    with pytest.raises(ValueError, match="margin a has no positive total for y"):
        rake(weights, [Margin(name="a", labels=labels, totals={"x": 10.0})])
    with pytest.raises(ValueError, match="around 1"):
        rake(weights, [one], bounds=(1.1, 3.0))


def test_labels_without_a_sample_are_reported_and_leave_the_population() -> None:
    """A total nobody can carry is named; the other margin is scaled to what is left, so both still hold."""
    weights, labels = np.ones(10), np.repeat(["x", "y"], 5)
    a = Margin(name="a", labels=labels, totals={"x": 6.0, "y": 4.0, "ice": 2.0})
    b = Margin(name="b", labels=np.tile(["p", "q"], 5), totals={"p": 6.0, "q": 6.0})
    result = rake(weights, [a, b])
    assert result.empty == ("a: ice",)
    assert result.weights[labels == "x"].sum() == pytest.approx(6.0)
    assert result.weights[b.labels == "p"].sum() == pytest.approx(5.0)


def test_totals_of_labels_are_sums_of_weights() -> None:
    """Expanded totals are plain sums by label."""
    assert expanded_totals(["b", "a", "b"], np.array([1.0, 2.0, 4.0])) == {"a": 2.0, "b": 5.0}
