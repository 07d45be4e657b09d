"""A loopback server whose files misbehave as told, and settings without patience."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from servers.faulty import spoilt
from servers.loopback import Loopback, Reply, Request, serving

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
class Shelf:
    """Files by path, and `faults[path]`: what to do wrong, one entry per request before it works; a last entry that
    starts with `always ` stays."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    server: Loopback | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    @property
    def log(self) -> list[Request]:
        assert self.server is not None
        return self.server.log

    def __call__(self, request: Request) -> Reply:
        queue = self.faults[request.path]
        fault = queue[0] if len(queue) == 1 and queue[0].startswith("always ") else (queue.popleft() if queue else "")
        body = self.files.get(request.path)
        whole = Reply(status=404) if body is None else Reply(body=body, headers={"Content-Type": "image/tiff"})
        return spoilt(fault.removeprefix("always "), request, whole)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """An empty Shelf on loopback."""
    found = Shelf()
    with serving(found) as server:
        found.server = server
        yield found


@pytest.fixture
def hasty() -> Access:
    """Few attempts, short waits."""
    return HASTY
