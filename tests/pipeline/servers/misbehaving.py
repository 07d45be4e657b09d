"""Files on loopback that misbehave as told, request by request."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from servers.faulty import spoilt
from servers.loopback import Loopback, Reply, Request, serving


@dataclass
class Misbehaving:
    """Subclasses know the files; `faults[path]` says what to do wrong (servers.faulty), one entry per request before it
    works; a last entry that starts with `always ` stays."""

    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    server: Loopback | None = None

    def body(self, path: str) -> bytes | None:
        """Of the file at a path, None where there is none."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Of the running server."""
        assert self.server is not None
        return self.server.url

    @property
    def log(self) -> list[Request]:
        """All requests so far."""
        assert self.server is not None
        return self.server.log

    def __call__(self, request: Request) -> Reply:
        queue = self.faults[request.path]
        fault = queue[0] if len(queue) == 1 and queue[0].startswith("always ") else (queue.popleft() if queue else "")
        body = self.body(request.path)
        whole = Reply(status=404) if body is None else Reply(body=body, headers={"Content-Type": "image/tiff"})
        return spoilt(fault.removeprefix("always "), request, whole)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the block runs."""
        with serving(self) as self.server:
            yield
