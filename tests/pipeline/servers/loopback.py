"""An HTTP/1.1 server on loopback: fast, with latency, throttled connections, faults on purpose and a log.

An app is a function Request → Reply. It parses just what the project's
clients send.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote

from servers.looped import Looped

REASONS = {200: "OK", 206: "Partial Content", 303: "See Other", 403: "Forbidden", 404: "Not Found"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    """Unquoted, without the query."""
    query: dict[str, str]
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes = b""
    number: int = 0
    """Requests this server had before."""

    @property
    def span(self) -> tuple[int, int] | None:
        """(first byte, stop) of a Range header with both ends, else None."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2]) + 1) if found else None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server answers, and how badly."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    """Before the first byte, beside the server's latency."""
    cut: int | None = None
    """Close the connection after so many bytes of the body; its length is announced whole."""
    reset: bool = False
    """Answer nothing and reset the connection."""
    bytes_per_s: float | None = None
    """Throttle of this reply, else that of the server."""
    raw: bytes = b""
    """Send just these bytes, whatever protocol they are of, and close the connection."""


App = Callable[[Request], Reply]


def json_reply(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """A JSON document."""
    kind = {"Content-Type": "application/json"}
    return Reply(body=json.dumps(document).encode(), status=status, headers={**kind, **(headers or {})})


def ranged(request: Request, reply: Reply) -> Reply:
    """A whole-file reply cut to the request's range: 206, or 416 behind the end."""
    span = request.span
    open_end = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    suffix = re.fullmatch(r"bytes=-(\d+)", request.headers.get("range", ""))
    size = len(reply.body)
    if open_end:
        span = (int(open_end[1]), size)
    elif suffix:
        span = (max(0, size - int(suffix[1])), size)
    if span is None or reply.status != 200:
        return reply
    first, stop = span[0], min(span[1], size)
    if first >= size:
        return replace(reply, status=416, body=b"", headers={**reply.headers, "Content-Range": f"bytes */{size}"})
    where = {"Content-Range": f"bytes {first}-{stop - 1}/{size}", "Accept-Ranges": "bytes"}
    return replace(reply, status=206, body=reply.body[first:stop], headers={**reply.headers, **where})


@dataclass(eq=False)
class Loopback(Looped):
    """A running server."""

    app: App
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    """Of each connection."""
    tls: ssl.SSLContext | None = None
    keep_log: bool = True
    url: str = ""
    port: int = 0
    log: list[Request] = field(default_factory=list)
    connections: int = 0
    """Connections accepted so far."""

    async def listen(self) -> asyncio.Server:
        """See Looped."""
        loop = asyncio.get_running_loop()
        make = loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=1024, ssl=self.tls)
        server = await make
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}"
        return server


class _Connection(asyncio.Protocol):
    """One client's connection; requests are answered in order."""

    def __init__(self, server: Loopback) -> None:
        self.server, self.buffer = server, b""
        self.waiting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections += 1
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting is not None:
            self.waiting.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._next()

    def _next(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            return
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(headers.get("content-length", 0))
        if len(self.buffer) < end + 4 + length:
            if headers.get("expect", "").lower() == "100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
        method, target, _ = lines[0].split(" ", 2)
        path, _, query = target.partition("?")
        request = Request(
            method=method,
            path=unquote(path),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=headers,
            body=body,
            number=len(self.server.log),
        )
        if self.server.keep_log:
            self.server.log.append(request)
        try:
            reply = self.server.app(request)
        except Exception as error:  # a bug of a test's app must be seen by the client, not hang it
            reply = Reply(status=599, body=repr(error).encode())
        wait = reply.wait_s + self.server.latency_s
        pace = reply.bytes_per_s or self.server.bytes_per_s
        if wait or pace:
            self.waiting = asyncio.ensure_future(self._later(request, reply, wait, pace))
        else:
            self._send(request, reply)
            self._next()

    async def _later(self, request: Request, reply: Reply, wait: float, pace: float | None) -> None:
        if wait:
            await asyncio.sleep(wait)
        self._send(request, reply, withhold=pace is not None)
        if pace and not reply.reset:
            body = b"" if request.method == "HEAD" else reply.body[: reply.cut]
            piece = max(1, int(pace * 0.002)) if pace > 1e6 else max(1, int(pace * 0.1))
            for start in range(0, len(body), piece):
                part = body[start : start + piece]
                self.transport.write(part)
                await asyncio.sleep(len(part) / pace)
            if reply.cut is not None:
                self.transport.close()
        self.waiting = None
        self._next()

    def _send(self, request: Request, reply: Reply, *, withhold: bool = False) -> None:
        if reply.reset:
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        if reply.raw:
            self.transport.write(reply.raw)
            self.transport.close()
            return
        headers = {"Content-Length": str(len(reply.body)), "Content-Type": "application/octet-stream", **reply.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        start = f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}\r\n{head}\r\n".encode("latin-1")
        body = b"" if request.method == "HEAD" or withhold else reply.body[: reply.cut]
        self.transport.write(start + body)
        if reply.cut is not None and not withhold:
            self.transport.close()


@contextmanager
def serving(
    app: App,
    *,
    latency_s: float = 0.0,
    bytes_per_s: float | None = None,
    tls: ssl.SSLContext | None = None,
    keep_log: bool = True,
) -> Iterator[Loopback]:
    """Serve an app on a free port of 127.0.0.1 while the block runs."""
    server = Loopback(app, latency_s=latency_s, bytes_per_s=bytes_per_s, tls=tls, keep_log=keep_log)
    server.start()
    try:
        yield server
    finally:
        server.stop()
