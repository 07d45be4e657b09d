"""The remote job done by rasterio, odc-stac, stackstac, rslearn and async-tiff; needs none of our packages.

    python tests/benchmarks/remote_peers.py NAME[:CONCURRENCY] JOB.json

JOB.json is written by remote.py. Prints one JSON object: seconds, CPU seconds, peak memory, checksum of all pixels.
Each peer runs twice on one core: the way its documentation shows, and as fast as we could make it by its own means,
which are many requests in flight, GDAL's settings for object stores, files kept open, and neighbouring chips read as
one window (`merged`).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from extraction_peers import Pixels, _full_item, _plain_item, measure, one_core

Tile = dict[str, Any]
"""One tile of a job: id, projection, scenes with hrefs, offsets of its chips."""
Read = Callable[[str, int, int, Any], None]
"""(href, row, column, out [H, W]): fill `out` with the window that starts there."""

GDAL_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
}
"""What HLS users are told to set; in the environment, since threads of every library see it there."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Chips that touch each other in one row, read as one window; or a single chip."""

    row: int
    col: int
    chips: int

    def split(self, image: Any, fmask: Any, size: int) -> Iterator[Pixels]:
        """Chips of the window's pixels [T, B, H, W] and [T, H, W]."""
        for start in range(0, self.chips * size, size):
            yield image[..., start : start + size], fmask[..., start : start + size]


def windows(tile: Tile, size: int, merge: bool) -> list[Window]:
    """The windows of a tile's chips."""
    found: list[Window] = []
    for row, col in tile["chips"]:
        last = found[-1] if found else None
        if merge and last and (last.row, last.col + last.chips * size) == (row, col):
            found[-1] = Window(row=row, col=last.col, chips=last.chips + 1)
        else:
            found.append(Window(row=row, col=col, chips=1))
    return found


def pooled(job: dict[str, Any], threads: int, merge: bool, read: Read) -> Iterator[Pixels]:
    """All chips in order, by `read` of plane after plane on a pool; windows ahead are bounded by twice its threads."""
    size = job["size"]
    pending: deque[tuple[Window, Any, Any, list[Future[None]]]] = deque()
    ahead = 0
    with ThreadPoolExecutor(threads) as pool:
        for tile in job["tiles"]:
            for window in windows(tile, size, merge):
                pending.append(_submit(pool, tile, window, size, read))
                ahead += len(pending[-1][3])
                while ahead > 2 * threads and len(pending) > 1:
                    ahead -= len(pending[0][3])
                    yield from _finished(*pending.popleft(), size)
        while pending:
            yield from _finished(*pending.popleft(), size)


def _submit(pool: ThreadPoolExecutor, tile: Tile, window: Window, size: int, read: Read) -> tuple[Any, ...]:
    image, fmask, planes = _empty(tile, window, size)
    return window, image, fmask, [pool.submit(read, href, window.row, window.col, out) for href, out in planes]


def _empty(tile: Tile, window: Window, size: int) -> tuple[Any, Any, list[tuple[str, Any]]]:
    """Image, fmask and their planes with the hrefs that fill them."""
    scenes = tile["scenes"]
    image = np.empty((len(scenes), len(scenes[0]["bands"]), size, size * window.chips), dtype=np.int16)
    fmask = np.empty((image.shape[0], *image.shape[2:]), dtype=np.uint8)
    planes = [(scene["bands"][b], image[t, b]) for t, scene in enumerate(scenes) for b in range(image.shape[1])]
    return image, fmask, planes + [(scene["fmask"], fmask[t]) for t, scene in enumerate(scenes)]


def _finished(window: Window, image: Any, fmask: Any, planes: list[Future[None]], size: int) -> Iterator[Pixels]:
    for plane in planes:
        plane.result()
    yield from window.split(image, fmask, size)


def rasterio_kept_open(job: dict[str, Any], _: int) -> Iterator[Pixels]:
    """One read after the other, every file opened once, no settings: rasterio's documentation."""
    yield from _rasterio(job, threads=1, merge=False)


def rasterio_threads(job: dict[str, Any], threads: int) -> Iterator[Pixels]:
    """Many threads, each of which keeps its own datasets open, with GDAL's settings."""
    os.environ.update(GDAL_SETTINGS)
    yield from _rasterio(job, threads, merge=False)


def rasterio_merged(job: dict[str, Any], threads: int) -> Iterator[Pixels]:
    """The same, neighbouring chips by one read, which GDAL turns into one request."""
    os.environ.update(GDAL_SETTINGS)
    yield from _rasterio(job, threads, merge=True)


def _rasterio(job: dict[str, Any], threads: int, merge: bool) -> Iterator[Pixels]:
    import rasterio
    from rasterio.windows import Window as RasterWindow

    local = threading.local()

    def read(href: str, row: int, col: int, out: Any) -> None:
        datasets: dict[str, Any] = local.__dict__.setdefault("datasets", {})
        dataset = datasets.get(href) or datasets.setdefault(href, rasterio.open(href, sharing=False))
        dataset.read(1, window=RasterWindow(col, row, out.shape[1], out.shape[0]), out=out)

    yield from pooled(job, threads, merge, read)


def odc_stac_load(job: dict[str, Any], _: int) -> Iterator[Pixels]:
    """One eager load per chip with odc-stac's cloud settings: its documentation."""
    for tile in job["tiles"]:
        load = _odc_load(tile, job["size"], pool=None)
        for window in windows(tile, job["size"], merge=False):
            yield from load(window)


def odc_stac_pool(job: dict[str, Any], threads: int) -> Iterator[Pixels]:
    """odc-stac's own thread pool, several loads at once."""
    yield from _odc_pooled(job, threads, merge=False)


def odc_stac_merged(job: dict[str, Any], threads: int) -> Iterator[Pixels]:
    """The same, neighbouring chips by one load."""
    yield from _odc_pooled(job, threads, merge=True)


def _odc_pooled(job: dict[str, Any], threads: int, merge: bool) -> Iterator[Pixels]:
    os.environ.update(GDAL_SETTINGS)
    pending: deque[Future[list[Pixels]]] = deque()
    loads = 2 if merge else max(2, threads // 14)
    with ThreadPoolExecutor(loads) as outer:
        pool = _LastingPool(threads)
        for tile in job["tiles"]:
            load = _odc_load(tile, job["size"], pool)
            for window in windows(tile, job["size"], merge):
                pending.append(outer.submit(load, window))
                while len(pending) > loads:
                    yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


class _LastingPool(ThreadPoolExecutor):
    """odc-stac shuts the pool that it is given after one load; threads that stay keep GDAL's connections."""

    def __exit__(self, *_: object) -> None:
        return


def _odc_load(tile: Tile, size: int, pool: ThreadPoolExecutor | None) -> Callable[[Window], list[Pixels]]:
    import odc.stac
    import pystac
    from affine import Affine
    from odc.geo.geobox import GeoBox

    odc.stac.configure_rio(cloud_defaults=True)
    items = [pystac.Item.from_dict(_full_item(scene, tile)) for scene in tile["scenes"]]
    keys = [f"b{i}" for i in range(len(tile["scenes"][0]["bands"]))]
    assets = {"*": {"data_type": "int16", "nodata": -9999}, "fmask": {"data_type": "uint8", "nodata": 255}}
    config, bands = {"*": {"assets": assets}}, [*keys, "fmask"]
    west, _, _, north = tile["bounds"]

    def load(window: Window) -> list[Pixels]:
        transform = Affine(30, 0, west + 30 * window.col, 0, -30, north - 30 * window.row)
        box = GeoBox((size, size * window.chips), transform, f"EPSG:{tile['epsg']}")
        cube = odc.stac.load(items, bands=bands, geobox=box, groupby="id", stac_cfg=config, pool=pool)
        image = np.stack([cube[key].values for key in keys], axis=1)
        return list(window.split(image, cube["fmask"].values, size))

    return load


def stackstac_cube(job: dict[str, Any], _: int) -> Iterator[Pixels]:
    """A lazy cube with stackstac's own chunks and Dask's own threads, one compute per chip: its documentation."""
    yield from _stackstac(job, merge=False, at_once=1, chunks=1024)


def stackstac_threads(job: dict[str, Any], threads: int) -> Iterator[Pixels]:
    """Chunks of one block, many threads, many chips per compute."""
    yield from _stackstac_tuned(job, threads, merge=False)


def stackstac_merged(job: dict[str, Any], threads: int) -> Iterator[Pixels]:
    """The same, chunks of a whole row of blocks where chips are neighbours."""
    yield from _stackstac_tuned(job, threads, merge=True)


def _stackstac_tuned(job: dict[str, Any], threads: int, merge: bool) -> Iterator[Pixels]:
    import dask

    os.environ.update(GDAL_SETTINGS)
    at_once = max(1, 4 * threads // 28) if not merge else 2
    with ThreadPoolExecutor(threads) as pool, dask.config.set(pool=pool):
        yield from _stackstac(job, merge, at_once, chunks=256)


def _stackstac(job: dict[str, Any], merge: bool, at_once: int, chunks: int) -> Iterator[Pixels]:
    import dask

    size = job["size"]
    for tile in job["tiles"]:
        todo = windows(tile, size, merge)
        wide = max(window.chips for window in todo) * size
        shape = (chunks, max(chunks, wide if wide > size else 0))
        keys = [f"b{i}" for i in range(len(tile["scenes"][0]["bands"]))]
        cubes = _stack(tile, keys, "int16", -9999, shape), _stack(tile, ["fmask"], "uint8", 255, shape)
        for start in range(0, len(todo), at_once):
            part = todo[start : start + at_once]
            lazy = [[_cut(cube, window, size) for cube in cubes] for window in part]
            for window, (image, fmask) in zip(part, dask.compute(lazy)[0], strict=True):
                yield from window.split(image.values, fmask.values[:, 0], size)


def _cut(cube: Any, window: Window, size: int) -> Any:
    return cube[..., window.row : window.row + size, window.col : window.col + size * window.chips]


def _stack(tile: Tile, assets: list[str], dtype: str, fill: int, chunks: tuple[int, int]) -> Any:
    import stackstac

    return stackstac.stack(
        [_plain_item(scene, tile) for scene in tile["scenes"]],
        assets=assets,
        epsg=tile["epsg"],
        resolution=30,
        bounds=tile["bounds"],
        chunksize=chunks,
        dtype=np.dtype(dtype),
        fill_value=np.dtype(dtype).type(fill),
        rescale=False,
        snap_bounds=False,
        properties=False,
        band_coords=False,
    )


def async_tiff_tiles(job: dict[str, Any], in_flight: int) -> Iterator[Pixels]:
    """One event loop, many files' blocks at once, decoded on async-tiff's own threads: its documentation."""
    yield from _async_tiff(job, in_flight, merge=False)


def async_tiff_merged(job: dict[str, Any], in_flight: int) -> Iterator[Pixels]:
    """The same, neighbouring blocks by one `fetch_tiles`, which joins their ranges."""
    yield from _async_tiff(job, in_flight, merge=True)


def _async_tiff(job: dict[str, Any], in_flight: int, merge: bool) -> Iterator[Pixels]:
    loop = asyncio.new_event_loop()
    stream = _async_chips(job, in_flight, merge)
    while (chips := loop.run_until_complete(anext(stream, None))) is not None:
        yield from chips
    loop.close()


async def _async_chips(job: dict[str, Any], in_flight: int, merge: bool) -> AsyncIterator[list[Pixels]]:
    from async_tiff import TIFF
    from async_tiff.store import HTTPStore

    size, limit = job["size"], asyncio.Semaphore(in_flight)
    files: dict[str, asyncio.Task[Any]] = {}
    root = job["tiles"][0]["scenes"][0]["fmask"].split("/HLS.")[0]
    store = HTTPStore.from_url(root, client_options={"allow_http": True})

    async def opened(href: str) -> Any:
        async with limit:
            return await TIFF.open(href[len(root) + 1 :], store=store)

    async def read(href: str, window: Window, out: Any) -> None:
        if href not in files:
            files[href] = asyncio.create_task(opened(href))
        file = await files[href]
        blocks = [(window.col // size + i, window.row // size) for i in range(window.chips)]
        async with limit:
            tiles = await file.fetch_tiles(blocks, 0)
        for i, tile in enumerate(tiles):
            out[:, i * size : (i + 1) * size] = np.asarray(await tile.decode())[..., 0]

    pending: deque[tuple[Window, Any, Any, asyncio.Future[Any]]] = deque()
    for tile in job["tiles"]:
        for window in windows(tile, size, merge):
            image, fmask, planes = _empty(tile, window, size)
            reads = asyncio.gather(*[asyncio.create_task(read(href, window, out)) for href, out in planes])
            pending.append((window, image, fmask, reads))
            while len(pending) > 1 + 2 * in_flight // len(planes):
                yield await _arrived(*pending.popleft(), size)
    while pending:
        yield await _arrived(*pending.popleft(), size)


async def _arrived(window: Window, image: Any, fmask: Any, reads: asyncio.Future[Any], size: int) -> list[Pixels]:
    await reads
    return list(window.split(image, fmask, size))


PEERS = (
    rasterio_kept_open,
    rasterio_threads,
    rasterio_merged,
    odc_stac_load,
    odc_stac_pool,
    odc_stac_merged,
    stackstac_cube,
    stackstac_threads,
    stackstac_merged,
    async_tiff_tiles,
    async_tiff_merged,
)

IMPORTS = {"rasterio": "rasterio", "odc": "odc.stac", "stackstac": "stackstac", "async": "async_tiff"}
"""What each peer imports, before the clock starts."""

if __name__ == "__main__":
    one_core()
    name, _, number = sys.argv[1].partition(":")
    importlib.import_module(IMPORTS[name.split("_")[0]])
    peer = {function.__name__: function for function in PEERS}[name]
    print(json.dumps(measure(peer(json.loads(Path(sys.argv[2]).read_text()), int(number or 1)))), flush=True)
    os._exit(0)  # async-tiff's threads crash an interpreter that ends in an orderly way
