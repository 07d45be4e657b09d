"""Synthetic HLS granules of full size and a range server with faults on purpose."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.hls.bands import BANDS, FMASK, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import tile_grid
from geofm_pipeline.scenes import SceneRef

TILE = "10SFE"
SIZE = 3660
DAYS = (200, 216, 232)


def rasterio_window(href: str, row: int, col: int, size: int) -> NDArray[np.generic]:
    """The trusted tool's answer."""
    with rasterio.open(href) as dataset:
        return dataset.read(1, window=Window(col, row, size, size))


def write_cog(path: Path, pixels: NDArray[np.generic], *, tile: str = TILE, nodata: float | None = None) -> None:
    """A COG in HLS's layout by GDAL's own driver: DEFLATE, predictor 2, blocks of 256, sparse."""
    grid = tile_grid(tile)
    profile = {
        "driver": "COG",
        "count": 1,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype.name,
        "crs": f"EPSG:{grid.epsg}",
        "transform": rasterio.Affine(*grid.transform),
        "nodata": nodata if nodata is not None else (-9999 if pixels.dtype == np.int16 else 255),
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "YES",
        "BLOCKSIZE": 256,
        "SPARSE_OK": "TRUE",
        "OVERVIEWS": "NONE",
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels, 1)


def swath(seed: int) -> tuple[NDArray[np.bool_], np.random.Generator]:
    """Where a partial granule has data: two corners of the tile, with whole blocks and edges left empty."""
    has_data = np.zeros((SIZE, SIZE), dtype=bool)
    has_data[100 + seed : 900, :700] = True
    has_data[3100:, 2900 - seed :] = True
    return has_data, np.random.default_rng(seed)


def make_granule(folder: Path, granule: GranuleId) -> SceneRef:
    """Seven files of a partial granule."""
    has_data, rng = swath(granule.day % 50)
    shape = (int(has_data.sum()),)
    hrefs = {}
    for band in (*BANDS, FMASK):
        path = folder / f"{granule}.{band_file(granule.sensor, band)}.tif"
        if band == FMASK:
            pixels = np.full((SIZE, SIZE), 255, dtype=np.uint8)
            pixels[has_data] = rng.choice(np.array([64, 128, 66, 68, 72, 80, 96, 192], np.uint8), shape)
        else:
            pixels = np.full((SIZE, SIZE), -9999, dtype=np.int16)
            pixels[has_data] = np.cumsum(rng.integers(-30, 31, shape, dtype=np.int16), dtype=np.int16)
        write_cog(path, pixels)
        hrefs[band] = str(path)
    return SceneRef(
        granule_id=str(granule),
        sensor=granule.sensor,
        date=granule.day,
        bands=tuple(hrefs[band] for band in BANDS),
        fmask=hrefs[FMASK],
    )


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[SceneRef, ...]:
    """Three partial granules of one tile, both sensors."""
    folder = tmp_path_factory.mktemp("archive")
    return tuple(
        make_granule(folder, GranuleId.parse(f"HLS.{('L30', 'S30')[i % 2]}.T{TILE}.2022{day}T183445.v2.0"))
        for i, day in enumerate(DAYS)
    )


@pytest.fixture(scope="session")
def trusted() -> Callable[[str, int, int, int], NDArray[np.generic]]:
    """(href, row, col, size) → pixels by rasterio."""
    return rasterio_window


@pytest.fixture(scope="session")
def cog_writer() -> Callable[..., None]:
    """:func:`write_cog`."""
    return write_cog


@pytest.fixture(scope="session")
def request_for() -> Callable[..., ChipRequest]:
    """(scenes, row, col, size) → a ChipRequest."""

    def make(scenes: tuple[SceneRef, ...], row: int, col: int, size: int, unit: int = 7) -> ChipRequest:
        tile = GranuleId.parse(scenes[0].granule_id).tile
        return ChipRequest(unit=unit, tile=tile, row_off=row, col_off=col, size=size, scenes=scenes)

    return make


@dataclass
class RangeServer:
    """Serves a folder on loopback; `faults[path]` lists what to do wrong, one entry per request, before it works."""

    root: Path
    url: str = ""
    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    log: list[tuple[str, str]] = field(default_factory=list)
    """(path with query, Range header) of every request."""

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        path, span = handler.path, handler.headers.get("Range", "")
        self.log.append((path, span))
        queue = self.faults[path.partition("?")[0]]
        fault = queue[0] if len(queue) == 1 and queue[0].startswith("always ") else (queue.popleft() if queue else "")
        fault = fault.removeprefix("always ")
        if fault.isdigit():
            self._answer(handler, int(fault), b"no")
        elif fault == "html":
            self._answer(
                handler, 200, b"\n<!DOCTYPE html><html>Earthdata Login</html>", kind="text/html; charset=utf-8"
            )
        elif fault == "html without type":
            self._answer(handler, 200, b"<html>Earthdata Login</html>", kind="application/octet-stream")
        elif fault == "reset":
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._file(handler, span, fault)

    def _file(self, handler: BaseHTTPRequestHandler, span: str, fault: str) -> None:
        path = self.root / handler.path.partition("?")[0].lstrip("/").replace("%20", " ")
        if not path.is_file():
            self._answer(handler, 404, b"no such file")
            return
        body = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", span)
        if found is None or fault == "ignore range":
            self._answer(handler, 200, body, short=fault == "short")
            return
        start, stop = int(found[1]), min(int(found[2]) + 1, len(body))
        if start >= len(body):
            self._answer(handler, 416, b"")
            return
        if fault == "slow":
            time.sleep(0.5)
        if fault == "flip":
            body = body[:start] + bytes(byte ^ 0x55 for byte in body[start:stop]) + body[stop:]
        extra = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
        self._answer(handler, 206, body[start:stop], extra, short=fault == "short")

    def _answer(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        extra: dict[str, str] | None = None,
        kind: str = "image/tiff",
        short: bool = False,
    ) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": kind, **(extra or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if short else body)
        if short:
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def range_server(scenes: tuple[SceneRef, ...]) -> Iterator[RangeServer]:
    """A RangeServer over the folder of `scenes`."""
    state = RangeServer(Path(scenes[0].fmask).parent)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            try:
                state.serve(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A reset on purpose is no error of the test."""

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def remote(range_server: RangeServer, scenes: tuple[SceneRef, ...]) -> tuple[SceneRef, ...]:
    """`scenes` with hrefs on the range server."""

    def moved(href: str) -> str:
        return f"{range_server.url}/{Path(href).name}"

    return tuple(
        SceneRef(
            granule_id=scene.granule_id,
            sensor=scene.sensor,
            date=scene.date,
            bands=tuple(map(moved, scene.bands)),
            fmask=moved(scene.fmask),
        )
        for scene in scenes
    )
