"""The extraction job done by rasterio, stackstac and odc-stac; needs none of our packages.

    python tests/benchmarks/extraction_peers.py NAME JOB.json

JOB.json is written by extraction.py. Prints one JSON object: seconds, CPU seconds, peak memory, checksum of all
pixels. Each peer is used the way its documentation shows, on one core, with pixels as they are stored.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Pixels = tuple[Any, Any]
"""Image [T, B, H, W] int16 and fmask [T, H, W] uint8 of one chip."""


def rasterio_per_chip(job: dict[str, Any]) -> Iterator[Pixels]:
    """Open, read one window, close: for every chip, band and date."""
    import rasterio

    def read(href: str, row: int, col: int) -> Any:
        with rasterio.open(href) as dataset:
            return dataset.read(1, window=rasterio.windows.Window(col, row, job["size"], job["size"]))

    yield from _by_window(job, read)


def rasterio_kept_open(job: dict[str, Any]) -> Iterator[Pixels]:
    """The same with every file opened once."""
    import rasterio

    datasets: dict[str, Any] = {}

    def read(href: str, row: int, col: int) -> Any:
        dataset = datasets.get(href) or datasets.setdefault(href, rasterio.open(href))
        return dataset.read(1, window=rasterio.windows.Window(col, row, job["size"], job["size"]))

    yield from _by_window(job, read)


def _by_window(job: dict[str, Any], read: Callable[[str, int, int], Any]) -> Iterator[Pixels]:
    for row, col in job["chips"]:
        image = np.stack([np.stack([read(href, row, col) for href in scene["bands"]]) for scene in job["scenes"]])
        yield image, np.stack([read(scene["fmask"], row, col) for scene in job["scenes"]])


def stackstac_cube(job: dict[str, Any]) -> Iterator[Pixels]:
    """stackstac's own reader: one lazy cube per pixel type, one compute per chip, chunks of one block."""
    import dask
    import stackstac

    dask.config.set(scheduler="sync")
    keys = [f"b{i}" for i in range(len(job["scenes"][0]["bands"]))]

    def stack(assets: list[str], dtype: str, fill: int) -> Any:
        return stackstac.stack(
            [_plain_item(scene, job) for scene in job["scenes"]],
            assets=assets,
            epsg=job["epsg"],
            resolution=30,
            bounds=job["bounds"],
            chunksize=256,
            dtype=np.dtype(dtype),
            fill_value=np.dtype(dtype).type(fill),
            rescale=False,
            snap_bounds=False,
            properties=False,
            band_coords=False,
        )

    bands, fmask = stack(keys, "int16", -9999), stack(["fmask"], "uint8", 255)
    for row, col in job["chips"]:
        window = np.s_[..., row : row + job["size"], col : col + job["size"]]
        yield bands[window].values, fmask[window].values[:, 0]


def _plain_item(scene: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    assets = {f"b{i}": {"href": href} for i, href in enumerate(scene["bands"])} | {"fmask": {"href": scene["fmask"]}}
    properties = {"datetime": scene["time"], "proj:epsg": job["epsg"], "proj:bbox": job["bounds"]}
    return {"id": scene["id"], "properties": properties, "assets": assets}


def odc_stac_per_chip(job: dict[str, Any]) -> Iterator[Pixels]:
    """odc-stac: one eager load per chip on the chip's own geobox."""
    import odc.stac
    import pystac
    from affine import Affine
    from odc.geo.geobox import GeoBox

    items = [pystac.Item.from_dict(_full_item(scene, job)) for scene in job["scenes"]]
    keys = [f"b{i}" for i in range(len(job["scenes"][0]["bands"]))]
    assets = {"*": {"data_type": "int16", "nodata": -9999}, "fmask": {"data_type": "uint8", "nodata": 255}}
    west, _, _, north = job["bounds"]
    for row, col in job["chips"]:
        transform = Affine(30, 0, west + 30 * col, 0, -30, north - 30 * row)
        box = GeoBox((job["size"], job["size"]), transform, f"EPSG:{job['epsg']}")
        cube = odc.stac.load(
            items, bands=[*keys, "fmask"], geobox=box, groupby="id", stac_cfg={"*": {"assets": assets}}
        )
        yield np.stack([cube[key].values for key in keys], axis=1), cube["fmask"].values


def _full_item(scene: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """A valid STAC item with projection fields."""
    west, south, east, north = job["lonlat"]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = _plain_item(scene, job)
    item["properties"] = {
        "datetime": scene["time"],
        "proj:code": f"EPSG:{job['epsg']}",
        "proj:shape": [3660, 3660],
        "proj:transform": [30, 0, job["bounds"][0], 0, -30, job["bounds"][3]],
    }
    for asset in item["assets"].values():
        asset.update(type="image/tiff; application=geotiff", roles=["data"])
    return {
        **item,
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "collection": "hls",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": job["lonlat"],
        "links": [],
    }


def measure(chips: Iterator[Pixels]) -> dict[str, float]:
    """Consume all chips; the checksum does not depend on their order."""
    checksum, wall, cpu = 0, time.perf_counter(), time.process_time()
    for image, fmask in chips:
        assert (image.dtype, fmask.dtype) == (np.int16, np.uint8)
        checksum += zlib.crc32(plane_words(fmask), zlib.crc32(plane_words(image)))
    return finish(wall, cpu, checksum)


def plane_words(pixels: Any) -> Any:
    """One word per plane [H, W] that nearly any other pixels would change; costs 0.1 ms per chip, a CRC 3 ms."""
    words = np.ascontiguousarray(pixels).view(np.uint64).reshape(-1, pixels[0].size * pixels.itemsize // 8)
    if pixels.ndim == 4:
        words = words.reshape(pixels.shape[0] * pixels.shape[1], -1)
    return np.bitwise_xor.reduce(words, axis=1)


def finish(wall: float, cpu: float, checksum: int) -> dict[str, float]:
    """Costs since `wall` and `cpu`, as one record."""
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_mb(),
        "checksum": checksum,
    }


def peak_mb() -> float:
    """Peak resident memory of this program alone; ru_maxrss would count the parent's pages before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def one_core() -> None:
    """Keep this process on the last core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


PEERS = (rasterio_per_chip, rasterio_kept_open, stackstac_cube, odc_stac_per_chip)

if __name__ == "__main__":
    one_core()
    peer = {function.__name__: function for function in PEERS}[sys.argv[1]]
    print(json.dumps(measure(peer(json.loads(Path(sys.argv[2]).read_text())))))
