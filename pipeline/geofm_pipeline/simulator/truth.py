"""The truth of a simulated archive: what lies under the clouds, and how much of each class lies in each cell."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import BLOCK, SENSORS, Sensor
from geofm_pipeline.simulator.granules import Planned, extent_window
from geofm_pipeline.simulator.ground import CLASSES, ground
from geofm_pipeline.simulator.orbits import Overpass
from geofm_pipeline.simulator.scene import MARGIN, clear_surface
from geofm_pipeline.simulator.spec import ArchiveSpec, Extent

_EPOCH = date(1970, 1, 1).toordinal()


def surface(spec: ArchiveSpec, planned: list[Planned], tile: str, day: date) -> NDArray[np.int16]:
    """Cloud-free surface reflectance of a tile's extent on a day: [6, H, W] counts (× 10⁻⁴), also where no swath was.

    Where a granule of that tile and day exists the light is that of its pass, else that of a Sentinel-2 pass.
    """
    window = extent_window(spec, tile)
    number = day.toordinal() - _EPOCH
    same_day = [p.overpass for p in planned if p.tile == tile and p.overpass.day == number]
    sensor: Sensor = SENSORS[-1]
    overpass = same_day[0] if same_day else Overpass(sensor=sensor, track=0, day=number)
    return clear_surface(spec.seed, overpass, window, ground(spec.seed, window.grown(MARGIN)))


def class_fractions(tile: str, extent: Extent, cover: NDArray[np.uint8]) -> pa.Table:
    """Share of each class in the 256-px cells that lie wholly in the extent: tile, cell_row, cell_col, lc_<code>."""
    first_row, first_col = -(-extent.row // BLOCK), -(-extent.col // BLOCK)
    last_row, last_col = (extent.row + extent.height) // BLOCK, (extent.col + extent.width) // BLOCK
    cells = [(r, c) for r in range(first_row, last_row) for c in range(first_col, last_col)]
    shares = np.zeros((len(cells), len(CLASSES)), dtype=np.float32)
    for number, (row, col) in enumerate(cells):
        top, left = row * BLOCK - extent.row, col * BLOCK - extent.col
        counts = np.bincount(cover[top : top + BLOCK, left : left + BLOCK].ravel(), minlength=256)
        shares[number] = counts[list(CLASSES)] / BLOCK**2
    rows, cols = np.array(cells, dtype=np.int16).reshape(-1, 2).T
    columns = {f"lc_{code}": shares[:, index] for index, code in enumerate(CLASSES)}
    return pa.table({"tile": pa.array([tile] * len(cells), pa.string()), "cell_row": rows, "cell_col": cols, **columns})


def write_fractions(path: Path, tables: list[pa.Table]) -> None:
    """Write the fractions of all tiles."""
    pq.write_table(pa.concat_tables(tables), path)
