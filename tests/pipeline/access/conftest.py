"""A loopback server whose files misbehave as told, and settings without patience."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate

import pytest
from servers.loopback import Loopback, Reply, Request, ranged, serving

from geofm_pipeline.access.settings import Access

HASTY = Access(
    attempts=4,
    first_wait_s=0.01,
    longest_wait_s=0.02,
    timeout_s=0.4,
    connect_timeout_s=0.4,
    requests_per_second=1e5,
)
PAGE = b"\n<!DOCTYPE html><html>Earthdata Login</html>"


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
        return bad(fault.removeprefix("always "), request, whole)


def bad(fault: str, request: Request, whole: Reply) -> Reply:
    """The reply to a request with one fault in it; '' is none."""
    good = ranged(request, whole)
    half = len(good.body) // 2
    match fault.split():
        case []:
            return good
        case [status] if status.isdigit():
            return Reply(status=int(status), body=b"no")
        case [status, "retry-after", seconds]:
            return Reply(status=int(status), headers={"Retry-After": seconds})
        case [status, "retry-at", seconds]:  # a date
            return Reply(
                status=int(status), headers={"Retry-After": formatdate(time.time() + int(seconds), usegmt=True)}
            )
        case ["html"]:
            return Reply(body=PAGE, headers={"Content-Type": "text/html; charset=utf-8"})
        case ["html-as-data"]:
            return Reply(body=PAGE)
        case ["reset"]:
            return Reply(reset=True)
        case ["short"]:
            return Reply(status=good.status, body=good.body, headers=good.headers, cut=half)
        case ["stall"]:
            return Reply(status=good.status, body=good.body, headers=good.headers, bytes_per_s=len(good.body) / 5)
        case ["silent"]:
            return Reply(status=good.status, body=good.body, headers=good.headers, wait_s=1.0)
        case ["ignore-range"]:
            return whole
        case ["other-range"]:
            other = {**good.headers, "Content-Range": f"bytes 0-{len(good.body) - 1}/{len(whole.body)}"}
            return Reply(status=206, body=whole.body[: len(good.body)], headers=other)
        case ["less"]:  # an honest length, but half of what was asked for
            first = request.span[0] if request.span else 0
            where = f"bytes {first}-{first + half - 1}/{len(whole.body)}"
            return Reply(status=206, body=good.body[:half], headers={**good.headers, "Content-Range": where})
    raise AssertionError(f"no fault {fault!r}")


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
