"""Feasible sequences of dates and their probabilities."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from geofm_sampling import Design
from geofm_sampling.dates import Candidates, Sequences, feasible_starts
from geofm_sampling.dates import draw_sequences as draw_sequences_of

DAY0 = 19_000


@st.composite
def problems(draw: st.DrawFn) -> tuple[Candidates, Design, int]:
    """A few units with a few clear granules each, several of one day among them."""
    units = draw(st.integers(1, 4))
    row = st.tuples(st.integers(0, 60), st.sampled_from([0.5, 0.8, 0.93, 1.0]))
    days = [sorted(draw(st.lists(row, max_size=9))) for _ in range(units)]
    flat = [(owner, DAY0 + day, clear, day <= 25) for owner, rows in enumerate(days) for day, clear in rows]
    low = draw(st.integers(1, 12))
    design = Design(
        years=(2022,),
        timesteps=draw(st.integers(1, 4)),
        min_gap=low,
        max_gap=low + draw(st.integers(0, 30)),
        min_clear=0.5,
        seed=draw(st.integers(0, 2**32)),
    )
    return candidates(flat), design, units


def candidates(rows: list[tuple[int, int, float, bool]]) -> Candidates:
    owner, date, clear, anchor = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Candidates(
        owner=np.array(owner, dtype=np.int64),
        date=np.array(date, dtype=np.int64),
        clear=np.array(clear, dtype=np.float64),
        anchor=np.array(anchor, dtype=np.bool_),
    )


def enumerate_sequences(c: Candidates, design: Design, owner: int) -> dict[tuple[int, ...], float]:
    """All feasible sequences of a unit and their weights, by trying every combination."""
    mine = np.flatnonzero(c.owner == owner).tolist()
    result = {}
    for rows in itertools.combinations(mine, design.timesteps):
        gaps = np.diff(c.date[list(rows)])
        if c.anchor[rows[0]] and np.all((gaps >= design.min_gap) & (gaps <= design.max_gap)):
            result[rows] = float(np.prod(c.clear[list(rows)]))
    return result


def draw_sequences(c: Candidates, units: NDArray[np.uint64], design: Design) -> Sequences:
    """Sequences of candidates whose granules are named by unit, date and place in the list."""
    names = [f"{o}/{d}/{i}" for i, (o, d) in enumerate(zip(c.owner.tolist(), c.date.tolist(), strict=True))]
    return draw_sequences_of(c, pa.array(names, pa.string()), units, design)


@given(problems(), st.booleans())
def test_probabilities_equal_enumeration(problem: tuple[Candidates, Design, int], joint: bool) -> None:
    """The drawn sequence is feasible, and its stated probability is its weight over the sum of all weights."""
    c, design, units = problem
    design = replace(design, joint_dates=joint)
    listed = [enumerate_sequences(c, design, owner) for owner in range(units)]
    starts = feasible_starts(c, design)
    assert set(np.flatnonzero(starts)) == {rows[0] for sequences in listed for rows in sequences}
    able = [owner for owner in range(units) if listed[owner]]
    keep = np.isin(c.owner, able)
    numbers = np.flatnonzero(keep)
    renumbered = candidates(
        [(able.index(int(c.owner[i])), int(c.date[i]), float(c.clear[i]), bool(c.anchor[i])) for i in numbers]
    )
    drawn = draw_sequences(renumbered, np.arange(len(able), dtype=np.uint64), design)
    for i, owner in enumerate(able):
        rows = tuple(numbers[drawn.rows[i]].tolist())
        assert drawn.probability[i] == pytest.approx(listed[owner][rows] / sum(listed[owner].values()), rel=1e-12)


@pytest.mark.parametrize("joint", [False, True])
def test_sequences_are_drawn_as_often_as_stated(joint: bool) -> None:
    """20,000 units with equal candidates draw each sequence in proportion to its weight (χ², α = 10⁻³)."""
    days = [(0, 1.0), (10, 0.8), (10, 0.9), (14, 0.5), (22, 1.0), (30, 0.6)]
    design = Design(years=(2022,), timesteps=3, min_gap=8, max_gap=20, min_clear=0.5, joint_dates=joint)
    one = candidates([(0, DAY0 + d, clear, d <= 12) for d, clear in days])
    exact = enumerate_sequences(one, design, 0)
    count = 20_000
    many = candidates([(u, DAY0 + d, clear, d <= 12) for u in range(count) for d, clear in days])
    drawn = draw_sequences(many, np.arange(count, dtype=np.uint64), design)
    seen = Counter(map(tuple, (drawn.rows % len(days)).tolist()))
    weight = np.array(list(exact.values()))
    observed = np.array([seen[rows] for rows in exact])
    assert observed.sum() == count
    assert stats.chisquare(observed, weight / weight.sum() * count).pvalue > 1e-3


def test_a_units_dates_do_not_depend_on_other_units() -> None:
    """Drawn alone or among others, beside far larger weights too, a unit gets bit-identical dates and p_dates."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(8, 60, 50)
    rows = [
        (u, DAY0 + int(day), float(rng.uniform(0.5, 1)), bool(day < 60))
        for u, size in enumerate(sizes)
        for day in np.sort(rng.integers(0, 300, size))
    ]
    design = Design(years=(2022,), timesteps=6, min_gap=3, max_gap=90, min_clear=0.5, seed=9)
    c = candidates(rows)
    able = np.unique(c.owner[feasible_starts(c, design)])
    assert able.size > 20
    keep = np.isin(c.owner, able)
    together = candidates([(int(np.searchsorted(able, r[0])), *r[1:]) for r, k in zip(rows, keep, strict=True) if k])
    ids = able.astype(np.uint64) + np.uint64(1000)
    drawn = draw_sequences(together, ids, design)
    for i in range(0, able.size, 7):
        alone = candidates([(0, *r[1:]) for r in rows if r[0] == able[i]])
        single = draw_sequences(alone, ids[i : i + 1], design)
        assert single.probability[0] == drawn.probability[i]
        assert np.array_equal(alone.date[single.rows[0]], together.date[drawn.rows[i]])


def test_a_day_is_never_used_twice() -> None:
    """Two granules of one day are alternatives, not a pair."""
    c = candidates([(0, DAY0, 1.0, True), (0, DAY0, 0.9, True)])
    design = Design(years=(2022,), timesteps=2, min_gap=1, max_gap=10)
    assert not feasible_starts(c, design).any()
    with pytest.raises(ValueError, match="without a feasible sequence"):
        draw_sequences(c, np.zeros(1, dtype=np.uint64), design)


def test_long_sequences_keep_their_digits() -> None:
    """With 40 dates of low clear shares the probabilities of the only sequence is exactly 1."""
    c = candidates([(0, DAY0 + 5 * i, 0.01, i == 0) for i in range(40)])
    design = Design(years=(2022,), timesteps=40, min_gap=5, max_gap=5, min_clear=0.01)
    assert draw_sequences(c, np.zeros(1, dtype=np.uint64), design).probability[0] == 1.0


def test_nobody_needs_dates() -> None:
    """No units, no candidates: empty answers."""
    none = candidates([])
    design = Design(years=(2022,))
    assert feasible_starts(none, design).size == 0
    assert draw_sequences(none, np.zeros(0, dtype=np.uint64), design).rows.shape == (0, 4)


def test_joint_dates_share_granules_and_keep_probabilities() -> None:
    """Units of one tile that see the same granules, at clear shares of their own, choose fewer of them jointly.

    Chosen alone, the mean of 1 / p over the units estimates the number of feasible sequences without bias (Horvitz &
    Thompson 1952), within four standard errors.
    """
    rng = np.random.default_rng(2)
    days, count = np.arange(0, 120, 5), 3000
    clear = rng.uniform(0.8, 1.0, (count, days.size))
    rows = [(u, DAY0 + int(d), float(clear[u, i]), bool(d < 60)) for u in range(count) for i, d in enumerate(days)]
    c = candidates(rows)
    names = pa.array([f"g{d}" for _ in range(count) for d in days])
    alone = Design(years=(2022,), timesteps=3, min_gap=10, max_gap=60, min_clear=0.5)
    listed = len(enumerate_sequences(candidates(rows[: days.size]), alone, 0))
    used = {}
    for joint in (False, True):
        drawn = draw_sequences_of(c, names, np.arange(count, dtype=np.uint64), replace(alone, joint_dates=joint))
        used[joint] = np.unique(drawn.rows.ravel() % days.size).size
        inverse = 1 / drawn.probability
        if not joint:
            assert abs(inverse.mean() - listed) < 4 * inverse.std() / np.sqrt(count)
    assert used[False] == days.size
    assert used[True] <= 8
