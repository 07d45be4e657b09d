"""What a look says about a unit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from geofm_sampling import LOOK, Design
from geofm_sampling.looking import STATE_NAMES, Asked, Found, examine

START, END = 19_144, 19_235  # 2022-06-01 to 2022-08-31
DESIGN = Design(years=(2022,), timesteps=2, min_gap=10, max_gap=40)
NAN = float("nan")


def look(*rows: tuple[int, str, int, float, float]) -> pa.Table:
    unit, granule, date, covered, clear = zip(*rows, strict=True) if rows else ((),) * 5
    return pa.table([list(c) for c in (unit, granule, date, covered, clear)], schema=LOOK.schema())


def seen(*rows: tuple[str, int, float, float], design: Design = DESIGN) -> Found:
    """What a look of one unit finds; days count from the first anchor day."""
    asked = Asked(unit=np.array([7], dtype=np.uint64), season_start=np.array([START]), season_end=np.array([END]))
    return examine(asked, look(*((7, g, START + day, covered, clear) for g, day, covered, clear in rows)), design)


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([], "no_scene"),
        ([("a", -1, 1.0, 1.0), ("b", 92, 1.0, 1.0)], "no_scene"),
        ([("a", 0, 0.0, 0.0), ("b", 91, 0.0, 0.0)], "no_coverage"),
        ([("a", 0, 0.0, 0.0), ("b", 5, NAN, NAN)], "no_coverage"),
        ([("a", 0, NAN, NAN), ("b", 92, 1.0, 1.0)], "unreadable"),
        ([("a", 0, 0.3, 0.3), ("b", 5, 0.5, 0.5)], "partial"),
        ([("a", 0, 0.3, 0.3), ("b", 5, NAN, NAN)], "partial"),
        ([("a", 0, 1.0, 0.3), ("b", 5, 1.0, 0.79)], "cloud"),
        ([("a", 0, 1.0, 1.0)], "gap_rule"),
        ([("a", 0, 1.0, 1.0), ("b", 9, 1.0, 1.0)], "gap_rule"),
        ([("a", 0, 1.0, 1.0), ("b", 41, 1.0, 1.0)], "gap_rule"),
        ([("a", 0, 1.0, 1.0), ("b", 10, 1.0, 0.8)], "observable"),
        ([("a", 91, 1.0, 1.0), ("b", 131, 1.0, 0.9)], "observable"),
    ],
)
def test_states(rows: list[tuple[str, int, float, float]], state: str) -> None:
    """Each reason is the first that holds, in the order of STATES; the later date may lie after the season."""
    assert STATE_NAMES[seen(*rows).state[0]] == state


def test_counts_are_of_dates_within_reach() -> None:
    """dates_seen counts granules that cover some of the cell until (T − 1) · max_gap after the season."""
    found = seen(
        ("before", -1, 1.0, 1.0),
        ("empty", 0, 0.0, 0.0),
        ("broken", 1, NAN, NAN),
        ("cloudy", 2, 1.0, 0.4),
        ("good", 3, 1.0, 0.9),
        ("late", 131, 1.0, 1.0),
        ("too late", 132, 1.0, 1.0),
    )
    assert found.dates_seen[0] == 3
    assert found.dates_feasible[0] == 2
    assert found.clear_best[0] == np.float32(0.9)
    assert np.isnan(seen(("broken", 1, NAN, NAN)).clear_best[0])


def test_order_and_repeats_of_rows_do_not_matter() -> None:
    """Shuffled, repeated and dictionary-encoded rows give the same candidates in the same order."""
    rows = [("b", 0, 1.0, 0.9), ("a", 0, 1.0, 1.0), ("c", 12, 1.0, 0.85), ("d", 50, 1.0, 1.0)]
    one = seen(*rows)
    two = seen(*rows[::-1], *rows[:2])
    assert one.granule.to_pylist() == two.granule.to_pylist() == ["a", "b", "c", "d"]
    assert np.array_equal(one.candidates.date, two.candidates.date)
    assert one.dates_seen[0] == two.dates_seen[0] == 4


def test_several_units_are_kept_apart() -> None:
    """Dates of one unit never continue a sequence of another."""
    asked = Asked(
        unit=np.array([3, 9, 11], dtype=np.uint64),
        season_start=np.array([START] * 3),
        season_end=np.array([END] * 3),
    )
    table = look(
        (9, "x", START + 20, 1.0, 1.0), (3, "x", START, 1.0, 1.0), (11, "x", START, 1, 1), (11, "y", START + 20, 1, 1)
    )
    found = examine(asked, table, DESIGN)
    assert [STATE_NAMES[s] for s in found.state] == ["gap_rule", "gap_rule", "observable"]
    assert found.candidates.owner.tolist() == [2, 2]


def test_two_granules_of_one_day_are_one_date_of_a_sequence() -> None:
    """Both sensors on one day do not make two dates."""
    design = Design(years=(2022,), timesteps=2, min_gap=1, max_gap=40)
    assert STATE_NAMES[seen(("l30", 0, 1.0, 1.0), ("s30", 0, 1.0, 1.0), design=design).state[0]] == "gap_rule"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(8, "a", START, 1.0, 1.0)], "unit 8, which was not asked for"),
        ([(7, "a", START, 1.0, NAN)], "lacks the other"),
        ([(7, "a", START, 0.5, 0.6)], "0 ≤ clear ≤ covered ≤ 1"),
        ([(7, "a", START, 100.0, 80.0)], "0 ≤ clear ≤ covered ≤ 1"),
        ([(7, "a", START, 1.0, -0.1)], "0 ≤ clear ≤ covered ≤ 1"),
        ([(7, "a", START + 365, 1.0, 1.0)], "outside the years"),
    ],
)
def test_a_look_that_breaks_its_contract_is_refused(rows: list[tuple[int, str, int, float, float]], words: str) -> None:
    """Foreign units, impossible shares and dates outside the years are errors, never silent."""
    asked = Asked(unit=np.array([7], dtype=np.uint64), season_start=np.array([START]), season_end=np.array([END]))
    with pytest.raises(ValueError, match=words):
        examine(asked, look(*rows), DESIGN)
