"""Pictures of losses: every curve is where its numbers are, and odd logs are drawn or refused in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_model.evaluation.curves import RUNS, LossCurves, curves_picture

Records = Sequence[Mapping[str, object]]
Colour = tuple[int, int, int]


def log(*, steps: int = 1000, end: float = 0.2, baseline: float | None = 0.98) -> list[dict[str, object]]:
    """A run whose loss falls in a straight line from 1.1; intervals are ± 0.05."""
    records: list[dict[str, object]] = [{"event": "start", "step": 0, "stores": ["a"]}]
    for step in range(10, steps + 1, 10):
        loss = 1.1 + (end - 1.1) * step / steps
        records.append({"event": "train", "step": step, "loss": loss, "rate": 1e-4})
        if step % 100 == 0:
            held = {"loss": loss, "low": loss - 0.05, "high": loss + 0.05, "baseline": baseline, "samples": 40}
            records.append({"event": "validation", "step": step, **held})
    return [*records, {"event": "end", "step": steps, "outcome": "finished"}]


def rows_of(picture: NDArray[np.uint8], colour: Colour, column: int) -> NDArray[np.int64]:
    """Rows of a column that have a colour, but for the averaging of edges."""
    near = np.abs(picture[:, column].astype(int) - np.array(colour)).sum(axis=-1) < 60
    return np.flatnonzero(near)


def test_curves_are_read_from_the_log_by_event() -> None:
    """Steps and losses of `train` and `validation`, the last baseline; other events and fields are passed over."""
    found = LossCurves.of("run", log(steps=200))
    assert found.training[:, 0].tolist() == list(range(10, 201, 10))
    assert found.validation[:, 0].tolist() == [100, 200]
    assert found.validation[:, 3] - found.validation[:, 2] == pytest.approx([0.1, 0.1])
    assert found.baseline == 0.98


def test_losses_that_are_no_numbers_leave_no_point() -> None:
    """null, NaN, missing and infinite losses are left out; an interval that is null leaves the loss without a band."""
    records: Records = [
        {"event": "train", "step": 3, "loss": 0.5},
        {"event": "train", "step": 1, "loss": None},
        {"event": "train", "step": 2, "loss": math.nan},
        {"event": "train", "step": 4},
        {"event": "train", "step": 5, "loss": math.inf},
        {"event": "validation", "step": 5, "samples": 0},
        {"event": "validation", "step": 6, "loss": 0.4, "low": None, "high": None, "baseline": None},
    ]
    found = LossCurves.of("run", records)
    assert found.training.tolist() == [[3.0, 0.5]]
    assert found.validation[:, :2].tolist() == [[6.0, 0.4]]
    assert np.isnan(found.validation[:, 2:]).all()
    assert found.baseline is None
    assert curves_picture({"run": records}).size == (960, 540)


def test_held_out_losses_are_drawn_where_they_are() -> None:
    """Held-out losses on the straight line between two marks of the axis lie on a straight line of pixels, falling;
    the baseline is level, above the end and below the start of it.
    """
    picture = np.asarray(curves_picture({"run": log()}))
    columns = range(200, 860, 60)
    middles = [float(rows_of(picture[100:480], RUNS[0], column).max()) for column in columns]
    assert np.diff(middles) == pytest.approx(np.diff(middles).mean(), abs=3)
    assert np.diff(middles).mean() > 10
    level = [rows_of(picture[100:480], RUNS[0], column) for column in range(500, 800)]
    upper = [part.min() for part in level if part.size and part.min() < middles[0]]
    assert len(upper) > 100
    assert max(upper) - min(upper) <= 2


def test_runs_are_drawn_over_each_other_in_their_own_colours() -> None:
    """A second run adds its colour to the legend and the plot and takes nothing of the first one's."""
    one = np.asarray(curves_picture({"first": log()}))
    two = np.asarray(curves_picture({"first": log(), "second": log(end=0.6, baseline=1.02)}))

    def count(picture: NDArray[np.uint8], colour: Colour) -> int:
        return int((picture == np.array(colour, dtype=np.uint8)).all(axis=-1).sum())

    assert count(one, RUNS[1]) == 0
    assert count(two, RUNS[1]) > 500
    assert count(two, RUNS[0]) > 0.8 * count(one, RUNS[0])


@given(
    losses=st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=400),
    width=st.floats(0, 1e6),
    steps=st.integers(1, 10**7),
)
@settings(max_examples=25)
def test_any_log_has_a_picture(losses: list[float], width: float, steps: int) -> None:
    """Of one record or hundreds, of constant or wild losses, with intervals however wide: the size that was asked."""
    records: list[dict[str, object]] = [
        {"event": "train", "step": steps * at, "loss": loss} for at, loss in enumerate(losses, 1)
    ]
    held = {"loss": losses[-1], "low": losses[-1] - width, "high": losses[-1] + width, "baseline": 1.0}
    records.append({"event": "validation", "step": steps, **held})
    assert curves_picture({"run": records}, width=480, height=320).size == (480, 320)


def test_a_wide_interval_does_not_hide_the_curve() -> None:
    """An interval a hundred times wider than all losses leaves the fall of the loss at least a third of the height."""
    records = log(baseline=None)
    for record in records:
        if record["event"] == "validation":
            record |= {"low": -50.0, "high": 50.0}
    picture = np.asarray(curves_picture({"run": records}))
    first, last = (rows_of(picture[100:480], RUNS[0], column).mean() for column in (145, 900))
    assert last - first > 380 / 3


def test_a_run_that_has_just_begun_shows_a_dot() -> None:
    """One training record alone, or one look at held-out samples alone, leaves a mark."""
    for event in ("train", "validation"):
        picture = np.asarray(curves_picture({"run": [{"event": event, "step": 7, "loss": 0.7}]}))[60:, 100:]
        assert (picture.max(axis=-1).astype(int) - picture.min(axis=-1) > 60).any()


def test_the_same_log_gives_the_same_picture() -> None:
    """Pixel by pixel."""
    assert curves_picture({"run": log()}).tobytes() == curves_picture({"run": log()}).tobytes()


@pytest.mark.parametrize(
    ("logs", "size", "message"),
    [
        ({}, (960, 540), "0 runs"),
        ({str(at): log() for at in range(7)}, (960, 540), "7 runs cannot be drawn over each other: choose 1 to 6"),
        ({"run": [{"event": "start", "step": 0}]}, (960, 540), "none of the runs has a loss yet"),
        ({"run": log()}, (100, 540), "too small"),
    ],
)
def test_what_cannot_be_drawn_is_refused(logs: dict[str, Records], size: tuple[int, int], message: str) -> None:
    """No run, too many, none with a loss, no room."""
    with pytest.raises(ValueError, match=message):
        curves_picture(logs, width=size[0], height=size[1])
