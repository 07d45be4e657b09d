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
from shapely.geometry import mapping

from geofm_pipeline.hls.bands import BAND_FILES, FMASK_FILE
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.lonlat import tile_polygon

GRANULES = (
    "HLS.L30.T32UNU.2022101T101010.v2.0",
    "HLS.L30.T32UNU.2022001T000004.v2.0",
    "HLS.S30.T32UNU.2022101T101020.v2.0",
    "HLS.S30.T32UNU.2022101T103020.v2.0",  # two of one tile and day
    "HLS.S30.T32UPU.2021200T101010.v2.0",
    "HLS.S30.T01KAB.2022150T221010.v2.0",  # on the antimeridian
    "HLS.L30.T19LBJ.2022239T144556.v2.0",  # southern hemisphere
)


def make_item(name: str, *, cloud: object = 12, folder: str = ".") -> dict[str, Any]:
    """An item as CMR-STAC writes them: no proj, no platform, no asset type."""
    granule = GranuleId.parse(name)
    outline = tile_polygon(granule.tile)
    ring = mapping(outline.geoms[0] if len(outline.geoms) == 1 else outline)
    keys = [*BAND_FILES[granule.sensor].values(), FMASK_FILE]
    stamp = f"{granule.time:%Y-%m-%dT%H:%M:%S}.000Z"
    return {
        "type": "Feature",
        "id": name,
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "collection": f"HLS{granule.sensor}_2.0",
        "geometry": json.loads(json.dumps(ring)),
        "bbox": list(outline.bounds),
        "properties": {"datetime": stamp, "start_datetime": stamp, "end_datetime": stamp, "eo:cloud_cover": cloud},
        "assets": {key: {"href": f"{folder}/{name}/{name}.{key}.tif", "roles": ["data"]} for key in keys},
        "links": [],
    }


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
