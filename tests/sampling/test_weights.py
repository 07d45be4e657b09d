"""Weights of written samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from geofm_sampling.weights import Groups, Looks, response_groups, sample_weights, wave_shares

# Group 0: 100 units, 50 looked at, 10 of them without a scene, 20 observable. Group 1: all 40 looked at, 8 observable.
GROUPS = Groups(
    frame=np.array([100, 40]),
    looked=np.array([50, 40]),
    seen=np.array([40, 40]),
    observable=np.array([20, 8]),
    share=np.ones(2),
)
GROUP = np.repeat([0, 1], [10, 8])
PI_STAR = np.repeat([50 / 100 * 10 / 20, 1.0], [10, 8])


def test_weights_add_up_to_the_populations_they_describe() -> None:
    """Design weights sum to the observable units expanded from the look, full weights to the units with a scene."""
    written = np.ones(18, dtype=bool)
    written[[0, 12]] = False
    weights = sample_weights(group=GROUP, pi_star=PI_STAR, written=written, groups=GROUPS)
    assert np.bincount(GROUP, weights=weights.design) == pytest.approx([20 / 50 * 100, 8])
    assert np.bincount(GROUP, weights=weights.full) == pytest.approx([40 / 50 * 100, 40])
    assert weights.design[0] == weights.full[12] == 0
    assert weights.read_rate == pytest.approx([0.9, 7 / 8])
    assert weights.clear_rate == pytest.approx([0.5, 0.2])


def test_a_class_lets_others_stand_for_a_group_that_lost_all() -> None:
    """With one class for both groups the weights still sum to all drawn samples' worth, here of equal weights."""
    pi_star, written = np.full(18, 0.25), np.repeat([False, True], [10, 8])
    weights = sample_weights(
        group=GROUP, pi_star=pi_star, written=written, groups=GROUPS, response_class=np.array([0, 0])
    )
    assert weights.design.sum() == pytest.approx(18 / 0.25)
    # r_clear of the class weights the groups as the frame holds them: (2·20 + 8) / (2·40 + 40).
    assert weights.full.sum() == pytest.approx(18 / 0.25 * 120 / 48)
    alone = sample_weights(group=GROUP, pi_star=pi_star, written=written, groups=GROUPS)
    assert alone.design.sum() == pytest.approx(8 / 0.25)


def test_the_share_of_a_wave_multiplies_its_weights() -> None:
    """λ scales both weights; a wave without a share in a group cannot have drawn there."""
    written = np.ones(18, dtype=bool)
    whole = sample_weights(group=GROUP, pi_star=PI_STAR, written=written, groups=GROUPS)
    half = sample_weights(
        group=GROUP, pi_star=PI_STAR, written=written, groups=replace(GROUPS, share=np.array([0.5, 1.0]))
    )
    assert half.design == pytest.approx(whole.design * np.array([0.5, 1.0])[GROUP])
    assert half.full == pytest.approx(whole.full * np.array([0.5, 1.0])[GROUP])
    with pytest.raises(ValueError, match="λ is 0"):
        sample_weights(
            group=GROUP, pi_star=PI_STAR, written=written, groups=replace(GROUPS, share=np.array([0.0, 1.0]))
        )


@pytest.mark.parametrize("pi", [0.0, 1.5])
def test_an_impossible_probability_is_refused(pi: float) -> None:
    """A probability of zero never becomes an infinite weight, nor one above 1 a small one."""
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        sample_weights(group=np.zeros(1, int), pi_star=np.full(1, pi), written=np.ones(1, bool), groups=GROUPS)


@pytest.mark.parametrize("coded", [False, True])
def test_states_are_counted_by_group(coded: bool) -> None:
    """Units without any readable scene are looked at but not seen; drawn ones are observable too."""
    state = pa.chunked_array(
        [["drawn", "cloud", "no_scene"], ["observable", "unreadable", "gap_rule", "no_coverage", "partial"]]
    )
    groups = response_groups(
        group=np.array([0, 0, 0, 1, 1, 1, 1, 2]),
        state=state.dictionary_encode() if coded else state,
        frame=np.array([9, 9, 9, 9]),
    )
    assert groups.looked.tolist() == [3, 4, 1, 0]
    assert groups.seen.tolist() == [2, 2, 1, 0]
    assert groups.observable.tolist() == [1, 1, 0, 0]
    assert groups.share.tolist() == [1.0] * 4


def _looks(asked: list[int], looked: list[int], ranks: list[int], observable: list[int], found: list[int]) -> Looks:
    """Looks of waves in a single group."""
    columns = (np.array(values, dtype=np.int64)[:, None] for values in (asked, looked, observable, ranks, found))
    a, k, o, r, f = columns
    return Looks(asked=a, looked=k, observable=o, ranks=r, found=f)


def test_one_wave_has_all() -> None:
    """A single wave has λ = 1, whatever it looked at ahead."""
    assert wave_shares(_looks([7], [10], [12], [3], [4]), np.array([90]))[:, 0] == pytest.approx([1.0])


def test_waves_share_as_they_were_asked_while_few_units_are_looked_at() -> None:
    """In a large stratum λ is nearly asked / Σ asked, and adds up to 1 where phase 1 ends with the look."""
    shares = wave_shares(_looks([10, 30], [20, 60], [20, 60], [8, 30], [8, 30]), np.array([10**6]))[:, 0]
    assert shares == pytest.approx([0.25, 0.75], rel=1e-3)
    assert shares.sum() == pytest.approx(1.0)


def test_a_used_up_stratum_belongs_to_those_who_looked() -> None:
    """Nothing was left to the second wave: the first one, which saw all, has λ = 1."""
    shares = wave_shares(_looks([5, 5], [60, 0], [60, 0], [6, 0], [6, 0]), np.array([60]))[:, 0]
    assert shares.tolist() == pytest.approx([1.0, 0.0])


def test_a_wave_that_did_not_look_takes_no_part() -> None:
    """Units were left, nobody looked at them: the others share."""
    shares = wave_shares(_looks([5, 5], [20, 0], [20, 0], [6, 0], [6, 0]), np.array([60]))[:, 0]
    assert shares.tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(("units", "able", "asked"), [(60, 6, (5, 5)), (60, 9, (5, 5)), (200, 12, (10, 5))])
def test_waves_are_right_on_average_where_strata_run_out(units: int, able: int, asked: tuple[int, int]) -> None:
    """The rule alone, units in random order, looks until one more is found: 20,000 orders, 4 standard errors."""
    rng = np.random.default_rng(units + able)
    totals = np.array([_two_wave_total(rng.permutation(units) < able, asked) for _ in range(20_000)])
    assert abs(totals.mean() - able) < 4 * totals.std() / np.sqrt(totals.size)


def _two_wave_total(order: NDArray[np.bool_], asked: tuple[int, int]) -> float:
    """Estimated number of observable units from two waves that look at 2 n ranks and on until n + 1 are found."""
    start, rows = 0, []
    for n in asked:
        window = order[start:]
        found = np.flatnonzero(window)
        ranks = min(max(2 * n, int(found[n]) + 1 if found.size > n else window.size), window.size)
        k = ranks if found.size <= n or found[n] >= ranks else max(min(2 * n, window.size), int(found[n]))
        rows.append((n, k, ranks, int(window[:k].sum()), int(window[:ranks].sum())))
        start += ranks
    share = wave_shares(_looks(*(list(column) for column in zip(*rows, strict=True))), np.array([order.size]))[:, 0]
    return float(sum(s * order.size / k * o for s, (_, k, _, o, _) in zip(share, rows, strict=True) if k))


def test_waves_without_samples_are_refused() -> None:
    """A wave that asked for nothing has no share."""
    with pytest.raises(ValueError, match="positive number"):
        wave_shares(_looks([10, 0], [1, 1], [1, 1], [1, 1], [1, 1]), np.array([60]))
