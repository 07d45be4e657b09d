"""Faults on purpose: one answer spoilt by the name of a fault, or an app whose next answers are spoilt in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate

from servers.loopback import App, Reply, Request, json_reply, ranged

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


PAGE = b"\n<!DOCTYPE html><html>Earthdata Login</html>"


def spoilt(fault: str, request: Request, whole: Reply) -> Reply:
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
            return replace(good, cut=half)
        case ["stall"]:
            return replace(good, bytes_per_s=max(1.0, len(good.body) / 10))
        case ["slow"]:  # no fault
            return replace(good, wait_s=0.3)
        case ["silent"]:
            return replace(good, wait_s=3.0)
        case ["ignore-range"]:
            return whole
        case ["other-range"]:
            other = {**good.headers, "Content-Range": f"bytes 0-{len(good.body) - 1}/{len(whole.body)}"}
            return Reply(status=206, body=whole.body[: len(good.body)], headers=other)
        case ["gzip"]:
            return replace(good, headers={**good.headers, "Content-Encoding": "gzip"})
        case ["xml-page"]:
            return Reply(body=b"\xef\xbb\xbf<?xml version='1.0'?><html>Login</html>")
        case ["comment-page"]:
            return Reply(body=b"\n  <!-- gateway --><html>Login</html>", headers={"Content-Type": "TEXT/HTML"})
        case ["no-http"]:
            return replace(good, raw=b"SSH-2.0-OpenSSH_9.2\r\n")
        case ["endless"]:  # as HTTP/1.0 did: the end of the connection is the end of the body
            return replace(good, raw=b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + whole.body)
        case ["multipart"]:  # one range in the form that is meant for several
            head = f"--x\r\nContent-Range: {good.headers.get('Content-Range', '')}\r\n\r\n".encode()
            kind = {"Content-Type": "multipart/byteranges; boundary=x"}
            return Reply(status=206, body=head + good.body + b"\r\n--x--\r\n", headers=kind)
        case ["garbled"]:  # the right length, but not the file's bytes
            return replace(good, body=bytes(byte ^ 0x55 for byte in good.body))
        case ["less"]:  # an honest length, but half of what was asked for
            first = request.span[0] if request.span else 0
            where = f"bytes {first}-{first + half - 1}/{len(whole.body)}"
            return Reply(status=206, body=good.body[:half], headers={**good.headers, "Content-Range": where})
    raise AssertionError(f"no fault {fault!r}")
