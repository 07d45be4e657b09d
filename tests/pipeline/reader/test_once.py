"""Promises of the once cache."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from geofm_pipeline.cog.once import OnceCache
from geofm_pipeline.errors import BlockReadError


def fault(transient: bool) -> BlockReadError:
    return BlockReadError(granule="g", band="B04", cause="why", transient=transient)


def test_many_threads_make_a_value_once() -> None:
    """Threads that ask for one value at the same moment share one making."""
    cache: OnceCache[int, int] = OnceCache(100, weight=lambda value: 1)
    made: list[int] = []
    barrier = threading.Barrier(8)

    def ask(i: int) -> int:
        barrier.wait()
        return cache.get(1, make)

    def make() -> int:
        time.sleep(0.02)
        made.append(1)
        return 42

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [42] * 8
    assert made == [1]


def test_the_least_recently_used_value_goes_first() -> None:
    """Weights are bounded; a value larger than the capacity is given out and then forgotten."""
    cache: OnceCache[int, int] = OnceCache(10, weight=lambda value: value)
    made: list[int] = []

    def get(key: int) -> int:
        return cache.get(key, lambda: made.append(key) or key)  # type: ignore[func-returns-value]

    for key in (4, 5, 4, 3, 4, 5, 20, 4):
        assert get(key) == key
    assert made == [4, 5, 3, 5, 20, 4]


def test_a_permanent_fault_is_found_once_and_a_transient_one_tried_again() -> None:
    """Asking again for a broken file costs nothing; asking again after a time-out asks the server."""
    cache: OnceCache[int, int] = OnceCache(10, weight=lambda value: 1)
    calls: list[bool] = []

    def fail(transient: bool) -> int:
        calls.append(transient)
        raise fault(transient)

    for transient in (True, True, False, False, True):
        with pytest.raises(BlockReadError):
            cache.get(1, lambda transient=transient: fail(transient))
    assert calls == [True, True, False]
