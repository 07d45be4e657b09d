"""The remote job done by rslearn: windows materialised to its GeoTIFFs; needs none of our packages.

    python tests/benchmarks/remote_rslearn.py rslearn|rslearn_workers[:WORKERS] JOB.json

The data source is rslearn's own for HLS, which reads each asset through a WarpedVRT, and the work is done by the
handler of `rslearn dataset materialize`. Its search is replaced by the items that it would have found; processes are
started and have imported everything before the clock starts. The files are read back and compared after it stops.

- `rslearn`: one process, one window at a time, what its documentation configures
- `rslearn_workers`: so many processes on the one core, GDAL's settings for object stores, nodata values given, up to
  four windows per task (each task makes a new data source, which asks again for what the one before knew)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from extraction_peers import Pixels, measure, one_core, peak_mb

GDAL_SETTINGS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif"}
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
"""rslearn's names; the hrefs are the job's."""
LAYER = "hls"


def config(known_nodata: bool) -> dict[str, Any]:
    """A dataset's config.json: one layer, two band sets, one item per date."""
    sets: list[dict[str, Any]] = [{"dtype": "int16", "bands": list(BANDS)}, {"dtype": "uint8", "bands": ["fmask"]}]
    if known_nodata:
        sets[0]["nodata_value"], sets[1]["nodata_value"] = -9999, 255
    source = {"class_path": "rslearn.data_sources.nasa_hls.Hls2", "ingest": False}
    layer = {"type": "raster", "band_sets": sets, "data_source": source, "resampling_method": "nearest"}
    return {"layers": {LAYER: layer}}


def make_dataset(folder: Path, job: dict[str, Any], known_nodata: bool) -> Any:
    """An rslearn dataset whose windows are the job's chips, prepared and not yet materialised."""
    from rasterio.crs import CRS
    from rslearn.dataset import Dataset, Window
    from rslearn.dataset.window import WindowLayerData
    from rslearn.utils.geometry import Projection
    from upath import UPath

    (folder / "config.json").write_text(json.dumps(config(known_nodata)))
    dataset = Dataset(UPath(folder))
    for tile in job["tiles"]:
        items = [_item(scene, tile) for scene in tile["scenes"]]
        projection = Projection(CRS.from_epsg(tile["epsg"]), 30, -30)
        west, north = tile["bounds"][0] // 30, -tile["bounds"][3] // 30
        for row, col in tile["chips"]:
            box = [int(v) for v in (west + col, north + row, west + col + job["size"], north + row + job["size"])]
            name = f"{tile['scenes'][0]['id']}_{row}_{col}"
            window = Window(dataset.storage, "default", name, projection, tuple(box), items[0].geometry.time_range)
            window.save()
            groups = [[item.serialize()] for item in items]
            window.save_layer_datas({LAYER: WindowLayerData(LAYER, groups)})
    return dataset


def _item(scene: dict[str, Any], tile: dict[str, Any]) -> Any:
    import shapely
    from rslearn.const import WGS84_PROJECTION
    from rslearn.data_sources.stac import SourceItem
    from rslearn.utils.geometry import STGeometry

    time_of = datetime.fromisoformat(scene["time"]).astimezone(UTC)
    geometry = STGeometry(WGS84_PROJECTION, shapely.box(*tile["lonlat"]), (time_of, time_of + timedelta(seconds=1)))
    urls = dict(zip(BANDS, scene["bands"], strict=True)) | {"fmask": scene["fmask"]}
    return SourceItem(scene["id"], geometry, urls, {})


class Handler:
    """rslearn's handler of `dataset materialize`, with what it cost."""

    def __init__(self, dataset: Any) -> None:
        from rslearn.main import MaterializeHandler

        self.inner = MaterializeHandler(ignore_errors=False)
        self.inner.set_dataset(dataset)

    def __call__(self, windows: list[Any]) -> tuple[int, float, float]:
        """(process, CPU seconds, its peak memory in MB)."""
        before = time.process_time()
        self.inner(windows)
        return os.getpid(), time.process_time() - before, peak_mb()


def warm_up(_: int) -> int:
    """Import what a task needs."""
    import rslearn.data_sources.nasa_hls
    import rslearn.main  # noqa: F401

    time.sleep(0.5)
    return os.getpid()


def materialize(dataset: Any, workers: int, batch: int) -> dict[str, float]:
    """Seconds, CPU seconds and memory of materialising all windows; 0 workers: in this process."""
    windows = dataset.load_windows()
    batches = [windows[i : i + batch] for i in range(0, len(windows), batch)]
    handler = Handler(dataset)
    if workers == 0:
        warm_up(0)
        wall, costs = time.perf_counter(), list(map(handler, batches))
        return _record(wall, costs)
    with multiprocessing.get_context("forkserver").Pool(workers) as pool:
        while len(set(pool.map(warm_up, range(4 * workers), chunksize=1))) < workers:
            pass
        wall, costs = time.perf_counter(), list(pool.imap_unordered(handler, batches))
        return _record(wall, costs)


def _batch(job: dict[str, Any], workers: int) -> int:
    """Windows per task: up to four, while every worker gets four tasks."""
    windows = sum(len(tile["chips"]) for tile in job["tiles"])
    return max(1, min(4, windows // (4 * workers)))


def _record(wall: float, costs: list[tuple[int, float, float]]) -> dict[str, float]:
    seconds = time.perf_counter() - wall
    memory = {process: mb for process, _, mb in costs}
    return {"seconds": seconds, "cpu_seconds": sum(cpu for _, cpu, _ in costs), "peak_mb": sum(memory.values())}


def pixels_of(dataset: Any, dates: int) -> Iterator[Pixels]:
    """What was written."""
    from rslearn.utils.raster_format import GeotiffRasterFormat

    for window in dataset.load_windows():
        form = GeotiffRasterFormat()
        image = [window.data.read_raster(LAYER, list(BANDS), form, group_idx=t).array[:, 0] for t in range(dates)]
        fmask = [window.data.read_raster(LAYER, ["fmask"], form, group_idx=t).array[0, 0] for t in range(dates)]
        yield np.stack(image), np.stack(fmask)


def main() -> None:
    one_core()
    name, _, number = sys.argv[1].partition(":")
    tuned = name == "rslearn_workers"
    if tuned:
        os.environ.update(GDAL_SETTINGS)
    job = json.loads(Path(sys.argv[2]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder), job, known_nodata=tuned)
        workers = int(number or 0)
        record = materialize(dataset, workers, batch=_batch(job, workers) if tuned else 1)
        record["checksum"] = measure(pixels_of(dataset, len(job["tiles"][0]["scenes"])))["checksum"]
    print(json.dumps(record))


if __name__ == "__main__":
    main()
