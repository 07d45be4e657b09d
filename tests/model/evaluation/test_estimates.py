"""Estimates with intervals: plain formulas, honest where little is known, and right as often as they say."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from geofm_model.evaluation.estimates import Estimate, RatioEstimates, ratio_estimates, t_quantile
from geofm_sampling.estimation import estimate, phases_metadata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Samples of four strata, shape (n,) each."""

    t: Floats
    v: Floats
    w: Floats
    stratum: Ints
    block: Ints


def table(seed: int = 0, sizes: tuple[int, ...] = (9, 4, 7, 12)) -> Table:
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    v = rng.integers(50, 400, n).astype(np.float64)
    return Table(
        t=v * rng.gamma(2.0, 0.3, n),
        v=v,
        w=rng.uniform(0.5, 30.0, n),
        stratum=np.repeat(np.arange(len(sizes)) * 3 + 1, sizes),
        block=rng.integers(0, 6, n),
    )


def by_strata(x: Table) -> RatioEstimates:
    return ratio_estimates(x.t, x.v, weight=x.w, stratum=x.stratum)


def numbers(found: Estimate) -> tuple[float, float, float, float]:
    assert found.low is not None
    assert found.high is not None
    assert found.standard_error is not None
    return found.value, found.standard_error, found.low, found.high


def test_the_ratio_and_its_variance_are_the_plain_sums() -> None:
    """R = Σ wT / Σ wV, s² = Σ_h n/(n−1) Σ (z − z̄_h)² / (Σ wV)² with z = w (T − RV), and an interval of t times s."""
    x = table()
    value, error, low, high = numbers(by_strata(x).overall)
    ratio = (x.w * x.t).sum() / (x.w * x.v).sum()
    z = x.w * (x.t - ratio * x.v)
    parts = [z[x.stratum == h] for h in np.unique(x.stratum)]
    each = np.array([part.size / (part.size - 1) * ((part - part.mean()) ** 2).sum() for part in parts])
    kish = [(w**2).sum() ** 2 / (w**4).sum() - 1 for w in (x.w[x.stratum == h] for h in np.unique(x.stratum))]
    reach = stats.t.ppf(0.975, each.sum() ** 2 / (each**2 / kish).sum())
    assert value == pytest.approx(ratio)
    assert error == pytest.approx(np.sqrt(each.sum()) / (x.w * x.v).sum())
    assert (low, high) == pytest.approx((value - reach * error, value + reach * error))


def test_a_stratum_is_estimated_as_if_it_were_all() -> None:
    """The estimates by stratum are those of the stratum's samples alone, in ascending order."""
    x = table()
    found = by_strata(x)
    assert list(found.by_stratum) == [1, 4, 7, 10]
    for h, part in found.by_stratum.items():
        inside = x.stratum == h
        alone = ratio_estimates(x.t[inside], x.v[inside], weight=x.w[inside]).overall
        assert numbers(part) == pytest.approx(numbers(alone))
        assert part.samples == inside.sum()


def test_equal_weights_of_one_stratum_are_the_textbook_mean() -> None:
    """With V = 1 and equal weights of any size: mean, s/√n and Student's interval with n − 1 degrees of freedom."""
    y = np.random.default_rng(1).standard_normal(23)
    want = stats.t.interval(0.95, 22, loc=y.mean(), scale=stats.sem(y))
    for weight in (None, np.full(23, 1e-6), np.full(23, 7e5)):
        value, error, low, high = numbers(ratio_estimates(y, np.ones(23), weight=weight).overall)
        assert (value, error) == pytest.approx((y.mean(), stats.sem(y)))
        assert (low, high) == pytest.approx(want)


def test_alike_strata_have_n_minus_h_degrees_of_freedom() -> None:
    """Equal weights, sizes and spread in five strata of four: t of 20 − 5."""
    y = np.tile([0.0, 1.0, 2.0, 3.0], 5)
    value, error, low, _ = numbers(ratio_estimates(y, np.ones(20), stratum=np.repeat(np.arange(5), 4)).overall)
    assert (value - low) / error == pytest.approx(stats.t.ppf(0.975, 15))


@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 50))
def test_units_and_order_do_not_matter(factor: float, seed: int) -> None:
    """Weights times a constant change nothing, T times a constant scales the estimate, the order of rows is free."""
    x = table(seed)
    want = np.array(numbers(by_strata(x).overall))
    order = np.random.default_rng(seed).permutation(x.t.size)
    weight, stratum = factor * x.w[order], x.stratum[order]
    found = ratio_estimates(factor * x.t[order], x.v[order], weight=weight, stratum=stratum)
    assert numbers(found.overall) == pytest.approx(factor * want, rel=1e-9)


def sampled(x: Table, *, p_block: float | None = None) -> pa.Table:
    """The samples as samples.parquet: one phase, all looked at observable and drawn, of a frame without end."""
    names, stratum, count = np.unique(x.stratum, return_inverse=True, return_counts=True)
    frame = 10**9
    part = 1.0 if p_block is None else p_block
    groups = [
        {
            **{"wave": 1, "split": int(p_block is not None), "stratum": int(name), "frame": frame},
            **{"looked": int(n), "observable": int(n), "drawn": int(n), "written": int(n), "lambda": 1.0},
        }
        for name, n in zip(names, count, strict=True)
    ]
    pi1 = part * count[stratum] / frame
    n = x.t.size
    columns = {
        **{"wave": np.ones(n, np.int16), "split": np.full(n, int(p_block is not None), np.int8)},
        **{"stratum": x.stratum.astype(np.int32), "unit": np.arange(n, dtype=np.uint64) << np.uint64(10)},
        **{"lon": np.zeros(n), "lat": np.zeros(n), "pi1": pi1, "weight_design": 1 / pi1, "weight_full": 1 / pi1},
        **{"block": x.block.astype(np.int32)},
    }
    return pa.table(columns).replace_schema_metadata(phases_metadata(pa.Table.from_pylist(groups)))


@pytest.mark.parametrize("sizes", [(9, 4, 7, 12), (5, 1, 6, 1), (1, 8, 1, 1, 4), (1, 1, 1, 1, 1)])
def test_the_statistics_room_says_the_same(sizes: tuple[int, ...]) -> None:
    """Value, standard error and interval are those of geofm_sampling's estimator for one phase of an endless frame.

    Strata of one sample are joined in the same way.
    """
    x = table(2, sizes)
    samples = sampled(x)
    weight = samples["weight_design"].to_numpy()
    row = estimate(samples, x.t, kind="ratio", denominator=x.v, local=False).to_pylist()[0]
    found = ratio_estimates(x.t, x.v, weight=weight, stratum=x.stratum)
    assert found.joined == sizes.count(1)
    want = [row[name] for name in ("estimate", "standard_error", "low", "high")]
    assert numbers(found.overall) == pytest.approx(want, rel=1e-5)
    json.dumps(found.overall.__dict__, allow_nan=False)


def test_blocks_are_those_of_the_statistics_room() -> None:
    """Where few of the blocks were held out, the interval between blocks is geofm_sampling's."""
    x = table(3)
    samples = sampled(x, p_block=1e-7)
    weight = samples["weight_design"].to_numpy()
    row = estimate(samples, x.t, kind="ratio", denominator=x.v, split=1, local=False).to_pylist()[0]
    found = ratio_estimates(x.t, x.v, weight=weight, stratum=x.stratum, block=x.block).overall
    want = [row[name] for name in ("estimate", "standard_error", "low", "high")]
    assert numbers(found) == pytest.approx(want, rel=1e-5)


def test_one_sample_has_a_value_and_no_interval() -> None:
    """One sample, one that says something beside empty ones, or one block: the value, and None for what is unknown."""
    for found in (
        ratio_estimates([3.0], [2.0]),
        ratio_estimates([3.0, 0.0, 0.0], [2.0, 0.0, 0.0], weight=[1.0, 2.0, 3.0]),
        ratio_estimates([1.0, 2.0], [1.0, 1.0], block=[4, 4]),
        ratio_estimates([3.0, 9.0], [2.0, 1.0], weight=[1.0, 0.0]),
        ratio_estimates([3.0, 0.0], [2.0, 0.0], block=[4, 5]),
    ):
        assert found.overall.value == 1.5
        assert (found.overall.low, found.overall.high, found.overall.standard_error) == (None, None, None)
        assert "no interval" in str(found.overall)


def test_samples_with_nothing_to_count_count_as_zeros() -> None:
    """T = V = 0 is a draw that found nothing valid: no part in the value, but in the number of draws.

    A stratum of such samples alone is named, not estimated.
    """
    x = table()
    t, v = (np.where(x.stratum == 7, 0.0, values) for values in (x.t, x.v))
    t[0] = v[0] = 0.0
    found = ratio_estimates(t, v, weight=x.w, stratum=x.stratum)
    assert found.empty == (7,)
    assert list(found.by_stratum) == [1, 4, 10]
    assert (found.overall.samples, found.by_stratum[1].samples) == (24, 8)
    inside = x.stratum == 1
    ratio = (x.w * t)[inside].sum() / (x.w * v)[inside].sum()
    z = (x.w * (t - ratio * v))[inside]
    error = numbers(found.by_stratum[1])[1]
    assert error == pytest.approx(np.sqrt(9 / 8 * (z**2).sum()) / (x.w * v)[inside].sum())


def test_samples_of_weight_zero_were_not_drawn() -> None:
    """A tombstone has weight 0: everything is as without it."""
    x = table()
    more = {name: np.append(getattr(x, name), getattr(x, name)[:5]) for name in ("t", "v", "stratum")}
    found = ratio_estimates(more["t"], more["v"], weight=np.append(x.w, np.zeros(5)), stratum=more["stratum"])
    assert found == by_strata(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numerator": [1.0, float("nan"), 2.0]}, "numerator of 1 samples is not finite, first nan at sample 1"),
        ({"weight": [1.0, float("inf"), 2.0]}, "weight of 1 samples is not finite"),
        ({"denominator": [1.0, 1.0, -2.0]}, r"denominator of sample 2 is -2\.0"),
        ({"weight": [1.0, 1.0]}, r"weight has shape \(2,\), must have \(3,\)"),
        ({"numerator": [[1.0, 1.0, 1.0]]}, r"numerator has shape \(1, 3\)"),
        ({"denominator": [0.0, 0.0, 0.0]}, "nothing to estimate"),
        ({"weight": [0.0, 0.0, 0.0]}, "nothing to estimate"),
        ({"numerator": [], "denominator": []}, "nothing to estimate"),
        ({"stratum": [0.0, 1.0, 1.0]}, "stratum of samples must be whole numbers"),
    ],
)
def test_what_cannot_be_estimated_is_refused(changes: dict[str, list[float]], message: str) -> None:
    """Nothing is estimated from numbers that are missing, negative or of another length; the message names them."""
    given: dict[str, list[float]] = {"numerator": [1.0, 2.0, 3.0], "denominator": [1.0, 1.0, 1.0]} | changes
    with pytest.raises(ValueError, match=message):
        ratio_estimates(**given)


@given(freedom=st.floats(1.0, 1e5))
def test_the_quantile_is_students(freedom: float) -> None:
    """As SciPy has it."""
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-7)


REPEATS = 2_000
BAND = (0.934, 0.966)
"""95 % ± 3.3 binomial standard errors of 2,000 replicates: a method that covers 95 % falls outside in 1 of 1,000 runs,
one that covers 92 % stays inside in 1 of 100."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """All units of a region, shape (N,) each."""

    t: Floats
    v: Floats
    stratum: Ints
    chance: Floats
    """Of a unit to be drawn: twenty are drawn in each stratum, whatever its size."""

    def rows(self, seed: int) -> Ints:
        """Randomised systematic sampling with unequal probabilities in each stratum (Hartley & Rao 1962)."""
        rng, found = np.random.default_rng(seed), list[Ints]()
        for part in np.split(np.arange(self.t.size), np.flatnonzero(np.diff(self.stratum)) + 1):
            order = rng.permutation(part)
            ticks = np.cumsum(self.chance[order])
            found.append(order[np.searchsorted(ticks, np.arange(20) + rng.random())])
        return np.concatenate(found)


@pytest.fixture(scope="module")
def world() -> Population:
    """6,300 units in six strata of 400 to 2,500; losses differ between strata and go with the chance of a unit.

    One unit in ten has nothing valid, the others 1 to 300 pixels.
    """
    rng = np.random.default_rng(5)
    stratum = np.repeat(np.arange(6), [2500, 1500, 1000, 500, 400, 400])
    v = rng.integers(1, 301, stratum.size) * (rng.random(stratum.size) > 0.1)
    level = rng.gamma(4.0, 0.25, stratum.size)
    size = np.clip(level * rng.lognormal(0.0, 0.5, stratum.size), 1 / 4, 4)
    chance = 20 * size / np.bincount(stratum, weights=size)[stratum]
    return Population(t=(0.2 + 0.15 * stratum) * level * v, v=v.astype(np.float64), stratum=stratum, chance=chance)


def holds(found: Estimate, truth: float) -> bool:
    _, _, low, high = numbers(found)
    return low <= truth <= high


def test_intervals_cover_as_often_as_they_say(world: Population) -> None:
    """2,000 stratified draws with unequal chances: 95 % intervals hold the truth in 93.4 to 96.6 %, overall and in a
    stratum; without weights they hardly ever do.
    """
    inside = world.stratum == 3
    truth, truth_3 = (world.t[part].sum() / world.v[part].sum() for part in (slice(None), inside))
    hits, plain = np.zeros(2), 0
    for seed in range(REPEATS):
        rows = world.rows(seed)
        t, v, h = world.t[rows], world.v[rows], world.stratum[rows]
        found = ratio_estimates(t, v, weight=1 / world.chance[rows], stratum=h)
        hits += [holds(found.overall, truth), holds(found.by_stratum[3], truth_3)]
        plain += seed < 200 and holds(ratio_estimates(t, v, stratum=h).overall, truth)
    assert BAND[0] <= hits[0] / REPEATS <= BAND[1]
    assert BAND[0] <= hits[1] / REPEATS <= BAND[1]
    assert plain / 200 < 0.5


def test_intervals_between_blocks_cover_as_often_as_they_say() -> None:
    """2,000 draws of 8 of 400 blocks, 6 of 30 units in each: 93.4 to 96.6 %; without `block` below 80 %."""
    rng, hits = np.random.default_rng(6), np.zeros(2)
    v = rng.integers(100, 301, (400, 30)).astype(np.float64)
    t = v * (1.0 + 0.3 * rng.standard_normal((400, 1)) + 0.3 * rng.standard_normal((400, 30)))
    truth = t.sum() / v.sum()
    for _ in range(REPEATS):
        block = np.repeat(rng.choice(400, 8, replace=False), 6)
        unit = np.concatenate([rng.choice(30, 6, replace=False) for _ in range(8)])
        numerator, denominator = t[block, unit], v[block, unit]
        hits += [
            holds(ratio_estimates(numerator, denominator, block=block).overall, truth),
            holds(ratio_estimates(numerator, denominator).overall, truth),
        ]
    assert BAND[0] <= hits[0] / REPEATS <= BAND[1]
    assert hits[1] / REPEATS < 0.8
