"""The order of an epoch: a whole permutation, the same everywhere, weighted where it is asked to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_model.loading.order import Stream, drawn_counts, permutation
from geofm_model.streams import mixed, uniform, words

GOLDEN = [0, 3, 2, 9, 6, 5, 11, 1, 10, 4, 8, 7]


@given(n=st.integers(1, 3000), seed=st.integers(-(2**63), 2**63), epoch=st.integers(0, 10**6))
def test_an_epoch_visits_everything_once(n: int, seed: int, epoch: int) -> None:
    """A permutation, whatever n."""
    assert np.array_equal(np.sort(permutation(n, seed=seed, epoch=epoch)), np.arange(n))


def test_the_order_is_written_down() -> None:
    """These numbers never change: a checkpoint of last year resumes in the same order."""
    assert permutation(12, seed=7, epoch=0).tolist() == GOLDEN
    assert permutation(12, seed=7, epoch=1).tolist() != GOLDEN
    assert permutation(12, seed=8, epoch=0).tolist() != GOLDEN
    assert int(mixed(np.array([0], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF  # of the authors' own program


def test_the_order_is_that_of_the_hashes() -> None:
    """Sorted by hash: the definition, by the plainest code."""
    hashes = words(3, "order", 5, np.arange(1000))
    assert np.array_equal(permutation(1000, seed=3, epoch=5), np.argsort(hashes))


def test_places_of_a_sample_are_even_over_epochs() -> None:
    """Chi-square of where sample 3 of 8 lands in 4,000 epochs, and of its neighbours: 1 in 1,000 false alarms each."""
    orders = np.array([permutation(8, seed=1, epoch=epoch) for epoch in range(4000)])
    places = np.bincount(np.argmax(orders == 3, axis=1), minlength=8)
    assert ((places - 500) ** 2 / 500).sum() < 24.3  # 7 degrees of freedom
    following = np.bincount([row[(list(row).index(3) + 1) % 8] for row in orders], minlength=8)
    assert ((following[following > 0] - 4000 / 7) ** 2 / (4000 / 7)).sum() < 22.5  # 6 degrees


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=60).filter(lambda w: sum(w) > 1e-3),
    n=st.integers(1, 500),
    seed=st.integers(0, 100),
)
def test_a_weighted_epoch_has_each_sample_its_share_of_times(weights: list[float], n: int, seed: int) -> None:
    """⌊n·p⌋ or ⌈n·p⌉ times, n in all."""
    values = np.array(weights)
    counts = drawn_counts(values, n, seed=seed, epoch=0)
    assert counts.sum() == n
    expected = n * values / values.sum()
    assert (counts >= np.floor(expected - 1e-6)).all()
    assert (counts <= np.ceil(expected + 1e-6)).all()


def test_over_epochs_the_shares_are_exact() -> None:
    """The mean number of times is n·p: within four standard errors of a systematic draw in 3,000 epochs."""
    weights = np.array([0.1, 2.0, 0.7, 1.3, 0.0, 5.0])
    counts = np.mean([drawn_counts(weights, 10, seed=2, epoch=epoch) for epoch in range(3000)], axis=0)
    assert np.abs(counts - 10 * weights / weights.sum()).max() < 4 * 0.5 / np.sqrt(3000)


def test_equal_weights_are_no_weights() -> None:
    """Each once, in the very same order."""
    plain, equal = Stream(50, seed=4), Stream(50, seed=4, weights=np.full(50, 0.3))
    assert np.array_equal(plain.epoch(2), equal.epoch(2))
    assert not plain.epoch(2)[1].any()


def test_turns_count_how_often_a_sample_came_before() -> None:
    """In a weighted epoch every occurrence of a sample has a number of its own, from 0."""
    ids, turns = Stream(40, seed=4, weights=np.array([8.0, 4.0] + [1.0] * 38)).epoch(0)
    for sample in range(40):
        mine = np.sort(turns[ids == sample])
        assert np.array_equal(mine, np.arange(mine.size))
    assert turns.max() >= 5


@given(position=st.integers(0, 200), count=st.integers(0, 90))
def test_the_stream_has_no_seams(position: int, count: int) -> None:
    """Any stretch of the stream is that stretch of the epochs laid end to end."""
    stream = Stream(17, seed=5)
    whole = np.concatenate([permutation(17, seed=5, epoch=epoch) for epoch in range(20)])
    ids, epochs, turns = stream.take(position, count)
    assert not turns.any()
    assert np.array_equal(ids, whole[position : position + count])
    assert np.array_equal(epochs, np.arange(position, position + count) // 17)


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    """Negative, all zero, not finite."""
    with pytest.raises(ValueError, match="weights must be finite"):
        drawn_counts(np.array(weights), 10, seed=0, epoch=0)


def test_numbers_of_two_purposes_are_unrelated() -> None:
    """Correlations of 20,000 pairs within four standard errors; uniform by Kolmogorov's distance (1 in 1,000)."""
    ids = np.arange(20_000)
    one, other = uniform(1, "crop", 3, ids), uniform(1, "flip", 3, ids)
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(ids.size)
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 4 / np.sqrt(ids.size)
    steps = np.arange(1, ids.size + 1) / ids.size
    assert np.abs(np.sort(one) - steps).max() < 1.95 / np.sqrt(ids.size)
