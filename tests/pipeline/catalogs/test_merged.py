"""Streams read by several threads: complete, bounded, ended by the first error and by whoever stops listening."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from geofm_pipeline.catalogs.merged import merged


def numbers(start: int, count: int, opened: list[int] | None = None) -> Iterator[int]:
    if opened is not None:
        opened.append(start)
    yield from range(start, start + count)


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_everything_arrives_in_order_within_a_stream(at_once: int) -> None:
    """However many are open at once."""
    found = list(merged([partial(numbers, 100 * n, 20) for n in range(10)], at_once=at_once))
    assert sorted(found) == [100 * n + k for n in range(10) for k in range(20)]
    for n in range(10):
        own = [value for value in found if value // 100 == n]
        assert own == sorted(own)


def test_nothing_comes_of_no_streams() -> None:
    """And nothing hangs."""
    assert list(merged([], at_once=4)) == []


def test_an_error_of_a_stream_ends_all() -> None:
    """It is raised as it is, and no thread is left behind."""

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken file")

    before = threading.active_count()
    with pytest.raises(ValueError, match="broken file"):
        list(merged([failing, *(partial(numbers, n, 1000) for n in range(20))], at_once=4))
    assert threading.active_count() == before


def test_little_is_read_ahead_and_nothing_after_the_listener_left() -> None:
    """Memory is bounded by the streams open at once and as many waiting values."""
    opened: list[int] = []
    before = threading.active_count()
    stream = merged([partial(numbers, n, 100, opened) for n in range(50)], at_once=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(opened) <= 2
    assert threading.active_count() == before
