"""Faults on purpose, in turn: wraps an app and spoils its next answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from servers.loopback import App, Reply, Request, json_reply

Spoil = Callable[[Reply], Reply]


@dataclass
class Faulty:
    """An app whose next answers are spoilt, one fault each; requests that `spares` picks are answered rightly."""

    app: App
    faults: list[Spoil] = field(default_factory=list)
    spares: Callable[[Request], bool] = field(default=lambda request: False)

    def __call__(self, request: Request) -> Reply:
        reply = self.app(request)
        return self.faults.pop(0)(reply) if self.faults and not self.spares(request) else reply


def error(status: int, **headers: str) -> Spoil:
    """NASA's form of an error: a JSON list of sentences; `Retry_After="1"` becomes a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda reply: json_reply({"errors": ["An unexpected error occurred"]}, status, named)


def web_page(reply: Reply) -> Reply:
    """An HTML page with status 200, as logins, hotspots and maintenance send."""
    return Reply(body=b"<!DOCTYPE html><html><body>please log in</body></html>", headers={"Content-Type": "text/html"})


def cut(reply: Reply) -> Reply:
    """The connection ends in the middle of the body."""
    return replace(reply, cut=len(reply.body) // 2)


def reset(reply: Reply) -> Reply:
    """The connection is reset before the answer."""
    return replace(reply, reset=True)


def slow(reply: Reply) -> Reply:
    """Ten bytes a second."""
    return replace(reply, bytes_per_s=10.0)


def junk(reply: Reply) -> Reply:
    """JSON that is cut short but announced as whole."""
    return replace(reply, body=reply.body[: len(reply.body) // 2])
