"""A folder of COGs behind a network: an HTTP/1.1 range server with latency and a limit per connection, and counters.

    python tests/benchmarks/remote_server.py FOLDER [--latency 0.03] [--bytes-per-s 80e6] [--core 0]

Prints its port and serves until its standard input closes. Every reply's last byte leaves `latency + bytes / rate`
after the request: replies of a few blocks in one write, longer ones piece by piece. Files are mapped, so that one core
serves more than 15,000 block requests a second (60 µs each) and the client is what is measured. GET with all forms of
a single range, HEAD, keep-alive. GET /_stats answers counts as JSON, GET /_reset does too and sets them to zero;
neither is counted or delayed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

PIECE = 160_000
"""Bytes that leave at once: 2 ms of a connection's 80 MB/s, two blocks."""
RANGE = re.compile(rb"^range: *bytes=(\d*)-(\d*)\r$", re.IGNORECASE | re.MULTILINE)
CLOSE = re.compile(rb"^connection: *close\r$", re.IGNORECASE | re.MULTILINE)


class Counts:
    """What clients asked since the last reset."""

    def __init__(self) -> None:
        self.requests = self.heads = self.missing = self.connections = self.bytes_sent = 0
        self.in_flight = self.most_in_flight = 0
        self.ranges: set[tuple[bytes, int, int]] = set()
        self.cpu = time.process_time()

    def as_dict(self) -> dict[str, float]:
        return {
            "requests": self.requests,
            "heads": self.heads,
            "missing": self.missing,
            "connections": self.connections,
            "bytes": self.bytes_sent,
            "distinct_ranges": len(self.ranges),
            "most_in_flight": self.most_in_flight,
            "server_cpu_seconds": time.process_time() - self.cpu,
        }


class Server:
    """The files, the delays, the counters."""

    def __init__(self, folder: Path, latency: float, bytes_per_s: float) -> None:
        self.folder, self.latency, self.bytes_per_s = folder.resolve(), latency, bytes_per_s
        self.counts = Counts()
        self._files: dict[bytes, memoryview | None] = {}

    def file(self, path: bytes) -> memoryview | None:
        """Content of the file at a URL's path, None where there is none."""
        if path not in self._files:
            where = (self.folder / unquote(path.decode("latin-1")).lstrip("/")).resolve()
            inside = where.is_relative_to(self.folder) and where.is_file()
            self._files[path] = _mapped(where) if inside else None
        return self._files[path]


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class Connection(asyncio.Protocol):
    """Requests of one connection, answered in order."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop = server, loop
        self.received, self.waiting = b"", deque[bytes]()
        self.busy = self.last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=64 << 20)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fresh = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.counts.in_flight -= self.busy
        self.busy = False

    def data_received(self, data: bytes) -> None:
        *heads, self.received = (self.received + data).split(b"\r\n\r\n")
        self.waiting.extend(heads)
        self.next()

    def next(self) -> None:
        while self.waiting and not self.busy and not self.transport.is_closing():
            self.answer(self.waiting.popleft())

    def answer(self, request: bytes) -> None:
        method, target, _ = request.split(b" ", 2)
        path = target.partition(b"?")[0]
        if path in (b"/_stats", b"/_reset"):
            self.control(path)
            return
        counts = self.server.counts
        counts.connections += self.fresh
        self.fresh = False
        counts.requests += 1
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        self.busy, self.last = True, bool(CLOSE.search(request + b"\r\n"))
        head, body = self.reply(path, request + b"\r\n")
        if method == b"HEAD":
            counts.heads += 1
            body = memoryview(b"")
        counts.bytes_sent += len(body)
        self.send(head, body, self.loop.time() + self.server.latency)

    def reply(self, path: bytes, request: bytes) -> tuple[bytes, memoryview]:
        """(head, body) of the reply."""
        file = self.server.file(path)
        if file is None:
            self.server.counts.missing += 1
            return _head(b"404 Not Found", 0), memoryview(b"")
        found = RANGE.search(request)
        if found is None:
            self.server.counts.ranges.add((path, 0, len(file)))
            return _head(b"200 OK", len(file)), file
        first, stop = _span(found[1], found[2], len(file))
        self.server.counts.ranges.add((path, first, stop))
        if first >= stop:
            return _head(b"416 Range Not Satisfiable", 0, b"bytes */%d" % len(file)), memoryview(b"")
        where = b"bytes %d-%d/%d" % (first, stop - 1, len(file))
        return _head(b"206 Partial Content", stop - first, where), file[first:stop]

    def send(self, head: bytes, body: memoryview, start: float) -> None:
        """Write the first piece when its last byte is due, then the others."""
        piece, rest = body[:PIECE], body[PIECE:]
        due = start + len(piece) / self.server.bytes_per_s
        self.loop.call_at(due, self.write, head, piece, rest, due)

    def write(self, head: bytes, piece: memoryview, rest: memoryview, due: float) -> None:
        if self.transport.is_closing():
            return
        self.transport.writelines([head, piece])
        if rest:
            self.send(b"", rest, due)
            return
        self.server.counts.in_flight -= 1
        self.busy = False
        if self.last:
            self.transport.close()
        self.next()

    def control(self, path: bytes) -> None:
        text = json.dumps(self.server.counts.as_dict()).encode()
        if path == b"/_reset":
            in_flight = self.server.counts.in_flight
            self.server.counts = Counts()
            self.server.counts.in_flight = in_flight
        self.transport.write(_head(b"200 OK", len(text)) + text)


def _head(status: bytes, length: int, where: bytes = b"") -> bytes:
    about = b"Content-Type: image/tiff\r\nAccept-Ranges: bytes\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    span = b"Content-Range: %s\r\n" % where if where else b""
    return b"HTTP/1.1 %s\r\n%s%sContent-Length: %d\r\n\r\n" % (status, about, span, length)


def _span(first: bytes, last: bytes, size: int) -> tuple[int, int]:
    """(first byte, stop) of `bytes=first-last`, either of which may be empty."""
    if not first:
        return max(0, size - int(last or 0)), size
    return int(first), min(int(last) + 1 if last else size, size)


async def serve(server: Server) -> None:
    """Serve until standard input closes."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    listening = await loop.create_server(lambda: Connection(server, loop), "127.0.0.1", 0, backlog=4096)
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


@contextmanager
def serving(folder: Path, *, latency: float = 0.03, bytes_per_s: float = 80e6, core: int = 0) -> Iterator[str]:
    """URL of a server process while the block runs."""
    options = ["--latency", str(latency), "--bytes-per-s", str(bytes_per_s), "--core", str(core)]
    command = [sys.executable, str(Path(__file__).resolve()), str(folder), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def ask(url: str, what: str) -> dict[str, Any]:
    """Counts since the last reset; `what` is `_stats` or `_reset`."""
    with urllib.request.urlopen(f"{url}/{what}") as reply:
        counts: dict[str, Any] = json.load(reply)
        return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--bytes-per-s", type=float, default=80e6)
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    if options.core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {options.core})
    asyncio.run(serve(Server(options.folder, options.latency, options.bytes_per_s)))


if __name__ == "__main__":
    main()
