"""Stores without an archive: deterministic chips for tests, examples and benchmarks of the store.

A chip is smooth noise with an HLS-like spectrum, clouds with their Fmask bits and, now and then, the edge of a
swath; a function of the unit and the dates alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.chips import Chip, ChipFailure, ChipReader, ChipRequest, ReadStats
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls.bands import FILL, SENSOR_CODE, SENSORS
from geofm_pipeline.hls.fmask import FILL as FMASK_FILL
from geofm_pipeline.scenes import SceneRef
from geofm_pipeline.store.finalise import ROWS, StoreSummary, finalise
from geofm_pipeline.store.skeleton import create
from geofm_pipeline.store.spec import StoreSpec
from geofm_pipeline.store.workbench import RowRequest
from geofm_pipeline.store.writer import pending_groups, write_group
from geofm_sampling.unit import pack_units

_SPECTRUM = (480.0, 720.0, 700.0, 2600.0, 2100.0, 1300.0)
"""Typical counts of the six bands over vegetated land."""
_TILE = "10SFE"
_SIDE = 57


def synthetic_chip(request: ChipRequest) -> Chip:
    """The chip of a request: image int16 [T, 6, H, W], fmask uint8 [T, H, W]."""
    edge = request.size
    image = np.empty((len(request.scenes), 6, edge, edge), dtype=np.int16)
    fmask = np.full((len(request.scenes), edge, edge), 64, dtype=np.uint8)
    for t, scene in enumerate(request.scenes):
        rng = np.random.Generator(np.random.Philox(key=[request.unit, scene.date]))
        texture = _noise(rng, edge)
        for b, level in enumerate(_SPECTRUM):
            image[t, b] = np.round(level * (1.0 + 0.2 * texture) + rng.normal(0, 12, texture.shape))
        fmask[t][texture > 1.6] = 66
        if rng.random() < 0.25:
            swath = int(rng.integers(edge // 2, edge))
            image[t, :, :, swath:], fmask[t, :, swath:] = FILL, FMASK_FILL
    return Chip(unit=request.unit, image=image, fmask=fmask)


class SyntheticReader:
    """A :class:`~geofm_pipeline.chips.ChipReader` that makes its pixels up.

    Parameters
    ----------
    make : from request to chip
    faults : by unit, a permanent error (answered as ChipFailure) or a transient one (raised)
    """

    def __init__(
        self,
        make: Callable[[ChipRequest], Chip] = synthetic_chip,
        *,
        faults: Mapping[int, BlockReadError] | None = None,
    ) -> None:
        self.stats = ReadStats()
        self._make = make
        self._faults = dict(faults or {})

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        """One answer per request, in order."""
        for request in requests:
            self.stats.requests += len(request.scenes)
            fault = self._faults.get(request.unit)
            if fault is None:
                yield self._make(request)
            elif fault.transient:
                raise fault
            else:
                yield ChipFailure(unit=request.unit, error=fault)


def synthetic_requests(spec: StoreSpec) -> list[RowRequest]:
    """One request per row: cells of one tile, sensors alternating, a date every 16 days, every third row held out."""
    rows = np.arange(spec.n)
    units = pack_units(
        tile=_TILE, chip_size=64, cell_row=rows // _SIDE % _SIDE, cell_col=rows % _SIDE, year=2022, season=1
    )
    return [_request(spec, int(index), int(unit)) for index, unit in zip(rows, units, strict=True)]


def synthetic_rows(spec: StoreSpec) -> pa.Table:
    """The table of contract ROWS that belongs to `synthetic_requests`."""
    requests = synthetic_requests(spec)
    scenes = [request.chip.scenes for request in requests]
    columns = {
        "index": [request.index for request in requests],
        "unit": [request.chip.unit for request in requests],
        "lon": [-122.0 + 0.01 * request.index for request in requests],
        "lat": [37.0 + 0.005 * request.index for request in requests],
        "date": [[scene.date for scene in row] for row in scenes],
        "sensor": [[SENSOR_CODE[scene.sensor] for scene in row] for row in scenes],
        "stratum": [request.index % 5 for request in requests],
        "split": [request.split for request in requests],
    }
    return pa.table({name: pa.array(columns[name], column.type) for name, column in ROWS.columns.items()})


def write_synthetic_store(out: Path, spec: StoreSpec, reader: ChipReader, *, threads: int = 1) -> StoreSummary:
    """Write and seal `out/store.zarr`, or continue one; parts lie beside it."""
    path, parts = out / "store.zarr", out / "parts"
    create(path, spec)
    requests = synthetic_requests(spec)
    for group in pending_groups(path, spec, parts):
        rows = spec.group_rows(group)
        write_group(path, spec, parts, group, requests[rows.start : rows.stop], reader, threads=threads)
    return finalise(path, spec, parts, synthetic_rows(spec))


def _request(spec: StoreSpec, index: int, unit: int) -> RowRequest:
    scenes = tuple(_scene(index, t) for t in range(spec.timesteps))
    chip = ChipRequest(unit=unit, tile=_TILE, row_off=0, col_off=0, size=spec.height, scenes=scenes)
    return RowRequest(index=index, chip=chip, split=int(index % 3 == 0))


def _scene(index: int, t: int) -> SceneRef:
    sensor = SENSORS[(index + t) % 2]
    return SceneRef(
        granule_id=f"HLS.{sensor}.T{_TILE}.2022{100 + 16 * t:03d}T183445.v2.0",
        sensor=sensor,
        date=18_993 + 99 + 16 * t,
        bands=("",) * 6,
        fmask="",
    )


def _noise(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Octaves of bilinear noise, standard deviation about 1, [size, size]."""
    total = np.zeros((size, size))
    for octave in range(1, 7):
        cells = 2**octave
        grid = rng.normal(size=(cells + 1, cells + 1))
        at = np.linspace(0, cells, size, endpoint=False)
        low, part = at.astype(int), at - at.astype(int)
        rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
        total += (rows[:, low] * (1 - part) + rows[:, low + 1] * part) * 0.6**octave
    return total / 0.5
