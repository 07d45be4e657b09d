"""A loopback server whose files misbehave as told, and settings without patience."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from servers.misbehaving import Misbehaving

from geofm_pipeline.access.settings import Access

HASTY = Access(
    attempts=4,
    first_wait_s=0.01,
    longest_wait_s=0.02,
    timeout_s=0.4,
    connect_timeout_s=0.4,
    requests_per_second=1e5,
)


@dataclass
class Shelf(Misbehaving):
    """Files by path; see Misbehaving for faults."""

    files: dict[str, bytes] = field(default_factory=dict)

    def body(self, path: str) -> bytes | None:
        """Of a file."""
        return self.files.get(path)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """An empty Shelf on loopback."""
    found = Shelf()
    with found.running():
        yield found


@pytest.fixture
def hasty() -> Access:
    """Few attempts, short waits."""
    return HASTY
