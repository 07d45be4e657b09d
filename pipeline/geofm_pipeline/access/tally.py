"""Counts of what reaching an archive cost and what went wrong on the way; small, additive, picklable."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Tally:
    """Counts of one piece of work; adding two gives the counts of both. Methods are safe from any thread."""

    requests: int = 0
    """HTTP requests sent, redirects and repeats included."""
    bytes_received: int = 0
    """Body bytes that arrived, those of failed requests included."""
    retries: Counter[str] = field(default_factory=Counter)
    """Cause → requests repeated because of it (values of Fault, and `address renewed`, `login renewed`)."""
    failures: Counter[str] = field(default_factory=Counter)
    """Cause → reads given up because of it."""
    notes: Counter[str] = field(default_factory=Counter)
    """What else should be known, e.g. `https instead of s3`, `waited for the rate limit`."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def sent(self, size: int) -> None:
        """One request and the size of its answer's body."""
        with self._lock:
            self.requests += 1
            self.bytes_received += size

    def retried(self, cause: str) -> None:
        """One more repeat."""
        with self._lock:
            self.retries[str(cause)] += 1

    def failed(self, cause: str) -> None:
        """One more read given up."""
        with self._lock:
            self.failures[str(cause)] += 1

    def expected(self, cause: str, what: str) -> None:
        """A read counted as given up was none: it asked whether there is a file; `what` is noted instead."""
        with self._lock:
            self.failures[str(cause)] -= 1
            self.failures = +self.failures
            self.notes[what] += 1

    def note(self, what: str) -> None:
        """One more of something else."""
        with self._lock:
            self.notes[what] += 1

    @property
    def retry_count(self) -> int:
        """Requests repeated, whatever the cause."""
        return sum(self.retries.values())

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            requests=self.requests + other.requests,
            bytes_received=self.bytes_received + other.bytes_received,
            retries=self.retries + other.retries,
            failures=self.failures + other.failures,
            notes=self.notes + other.notes,
        )

    def __sub__(self, before: Tally) -> Tally:
        """What came after an earlier state of the same tally."""
        return Tally(
            requests=self.requests - before.requests,
            bytes_received=self.bytes_received - before.bytes_received,
            retries=self.retries - before.retries,
            failures=self.failures - before.failures,
            notes=self.notes - before.notes,
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "requests": self.requests,
            "bytes_received": self.bytes_received,
            "retries": dict(sorted(self.retries.items())),
            "failures": dict(sorted(self.failures.items())),
            "notes": dict(sorted(self.notes.items())),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> Tally:
        """Inverse of :meth:`as_dict`; what is absent counts nothing."""

        def counter(name: str) -> Counter[str]:
            found = record.get(name)
            return Counter(found) if isinstance(found, Mapping) else Counter()

        return cls(
            requests=int(str(record.get("requests", 0))),
            bytes_received=int(str(record.get("bytes_received", 0))),
            retries=counter("retries"),
            failures=counter("failures"),
            notes=counter("notes"),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (self.as_dict(),))


def _rebuilt(record: Mapping[str, object]) -> Tally:
    return Tally.from_dict(record)
