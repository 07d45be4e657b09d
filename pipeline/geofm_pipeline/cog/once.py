"""A cache whose values are made once, also when many threads ask for the same one at the same moment."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from geofm_pipeline.errors import BlockReadError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Entry(Generic[V]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: V | None = None
        self.error: BlockReadError | None = None
        self.made = False
        self.weight = 0

    def make(self, make: Callable[[], V]) -> None:
        """Set value or error; a transient error leaves the entry empty, so that it is tried again."""
        try:
            self.value = make()
        except BlockReadError as error:
            if error.transient:
                raise
            self.error = error
        self.made = True


class OnceCache(Generic[K, V]):
    """Least recently used entries go when the sum of weights passes `capacity`. A permanent BlockReadError is kept
    like a value, so that a broken file is asked for once."""

    def __init__(self, capacity: int, weight: Callable[[V], int]) -> None:
        self._capacity, self._weigh, self._total = capacity, weight, 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made by `make` unless it is there; other threads that ask for it wait."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if not entry.made:
                entry.make(make)
                self._admit(key, entry)
        if entry.error is not None:
            raise copy.copy(entry.error)  # each thread raises its own: a shared one would collect tracebacks
        assert entry.value is not None
        return entry.value

    def _admit(self, key: K, entry: _Entry[V]) -> None:
        with self._lock:
            if self._entries.get(key) is not entry:
                return  # evicted while it was made
            entry.weight = 1 if entry.value is None else self._weigh(entry.value)
            self._total += entry.weight
            while self._total > self._capacity and len(self._entries) > 1:
                self._total -= self._entries.popitem(last=False)[1].weight
