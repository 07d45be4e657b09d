"""Progress on a terminal and in a pipe."""

from __future__ import annotations

import io

from geofm_pipeline.progress import Progress, duration, human_bytes


def test_piped_progress_prints_whole_lines_with_rate_and_time_left() -> None:
    """Every few seconds one line; the last line says what it took."""
    clock = iter(range(0, 1000, 2))
    stream = io.StringIO()
    items = list(
        Progress(stream, clock=lambda: next(clock), interval=5.0).count(
            range(10), total=10, label="write", unit="chips"
        )
    )
    lines = stream.getvalue().splitlines()
    assert items == list(range(10))
    assert lines[0] == "write: 3 of 10 chips (30 %), 0.5 chips/s, 14 s left"
    assert lines[-1].startswith("write: 10 of 10 chips (100 %)")
    assert "took" in lines[-1]
    assert "\r" not in stream.getvalue()


def test_an_item_may_count_as_several() -> None:
    """`size` gives how much of the total one item is."""
    stream = io.StringIO()
    list(Progress(stream).count([3, 4], total=7, label="x", unit="y", size=lambda n: n))
    assert "7 of 7" in stream.getvalue()


def test_durations_and_sizes_read_well() -> None:
    """Units grow with the value."""
    assert [duration(s) for s in (0.44, 48, 185, 7800)] == ["0.4 s", "48 s", "3 min 05 s", "2 h 10 min"]
    assert [human_bytes(n) for n in (0, 999, 1500, 3.2e9, 5e12)] == ["0 B", "999 B", "1.5 kB", "3.2 GB", "5.0 TB"]
