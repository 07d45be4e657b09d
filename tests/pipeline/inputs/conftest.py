"""A handful of made-up granules as items, in every dialect, and a web server on loopback that can misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from servers.granule_items import GRANULES, make_item


@pytest.fixture
def items() -> list[dict[str, Any]]:
    """Items of GRANULES with relative hrefs."""
    return [make_item(name) for name in GRANULES]


@pytest.fixture
def item_of() -> Callable[..., dict[str, Any]]:
    """The function that makes one item of a granule id."""
    return make_item


@pytest.fixture
def write_collection(tmp_path: Path) -> Callable[[list[dict[str, Any]]], str]:
    """Write items as an ItemCollection and return its path."""

    def write(features: list[dict[str, Any]]) -> str:
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return str(path)

    return write


@dataclass
class Reply:
    """What a web server answers."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, document: object, status: int = 200, **headers: str) -> Reply:
        return cls(json.dumps(document).encode(), status, {"Content-Type": "application/json", **headers})


Answer = Callable[[str, dict[str, str]], Reply]
"""(path, query) → reply."""


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve on loopback; yields the base URL. Range requests of 200 replies are honoured."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            reply = answer(parts.path, query)
            body, status = reply.body, reply.status
            asked = self.headers.get("Range", "")
            headers = dict(reply.headers)
            if status == 200 and asked.startswith("bytes="):
                first, last = [*asked[6:].split("-"), ""][:2]
                end = min(int(last) if last else len(body) - 1, len(body) - 1)
                headers["Content-Range"] = f"bytes {first}-{end}/{len(body)}"
                body, status = body[int(first) : end + 1], 206
            self.send_response(status)
            headers.setdefault("Content-Length", str(len(body)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name http.server asks for

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def serve() -> Callable[[Answer], Any]:
    """The context manager that serves an answer function on loopback."""
    return serving


@pytest.fixture
def reply() -> type[Reply]:
    """The reply class of the web server."""
    return Reply
