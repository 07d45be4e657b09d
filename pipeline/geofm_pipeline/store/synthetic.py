"""Chips without an archive: deterministic images for tests, examples and benchmarks of the store.

Each chip is smooth noise with an HLS-like spectrum, clouds with their Fmask bits and, now and then, missing pixels;
a function of the unit, date and size alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest, ReadStats
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls.bands import FILL
from geofm_pipeline.hls.fmask import FILL as FMASK_FILL
from geofm_pipeline.scenes import SceneRef

_SPECTRUM = (480.0, 720.0, 700.0, 2600.0, 2100.0, 1300.0)
"""Typical counts of the six bands over vegetated land."""


class SyntheticReader:
    """A :class:`~geofm_pipeline.chips.ChipReader` that makes its pixels up.

    Parameters
    ----------
    bands : number of bands B
    faults : by unit, a permanent error (answered as ChipFailure) or a transient one (raised)
    """

    def __init__(self, *, bands: int = 6, faults: Mapping[int, BlockReadError] | None = None) -> None:
        self.stats = ReadStats()
        self._bands = bands
        self._faults = dict(faults or {})

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        """One answer per request, in order."""
        for request in requests:
            self.stats.requests += (self._bands + 1) * len(request.scenes)
            fault = self._faults.get(request.unit)
            if fault is None:
                yield synthetic_chip(request, bands=self._bands)
            elif fault.transient:
                raise fault
            else:
                yield ChipFailure(unit=request.unit, error=fault)


def synthetic_request(unit: int, *, size: int, timesteps: int, tile: str = "10SFE") -> ChipRequest:
    """A request for a unit at `timesteps` made-up granules, sensors alternating."""
    scenes = tuple(_scene(unit, t, tile) for t in range(timesteps))
    return ChipRequest(unit=unit, tile=tile, row_off=0, col_off=0, size=size, scenes=scenes)


def synthetic_chip(request: ChipRequest, *, bands: int = 6) -> Chip:
    """The chip of a request: image int16 [T, B, H, W], fmask uint8 [T, H, W]."""
    shape = (len(request.scenes), request.size, request.size)
    image = np.empty((shape[0], bands, *shape[1:]), dtype=np.int16)
    fmask = np.full(shape, 64, dtype=np.uint8)
    for t, scene in enumerate(request.scenes):
        rng = np.random.Generator(np.random.Philox(key=[request.unit, scene.date]))
        texture = _noise(rng, request.size)
        for b in range(bands):
            level = _SPECTRUM[b % 6] * (1.0 + 0.35 * texture) + rng.normal(0, 12, texture.shape)
            image[t, b] = np.round(level).astype(np.int16)
        fmask[t][texture > 1.6] = 66
        if rng.random() < 0.25:
            edge = int(rng.integers(1, request.size))
            image[t, :, :, edge:], fmask[t, :, edge:] = FILL, FMASK_FILL
    return Chip(unit=request.unit, image=image, fmask=fmask)


def _scene(unit: int, t: int, tile: str) -> SceneRef:
    day = 19_000 + unit % 50 + 16 * t
    sensor = "S30" if (unit + t) % 2 else "L30"
    name = f"HLS.{sensor}.T{tile}.{day}.v2.0"
    return SceneRef(granule_id=name, sensor="S30" if sensor == "S30" else "L30", date=day, bands=("",) * 6, fmask="")


def _noise(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Sum of octaves of bilinear noise, standard deviation about 1, [size, size]."""
    total = np.zeros((size, size))
    for octave in range(1, 7):
        cells = 2**octave
        grid = rng.normal(size=(cells + 1, cells + 1))
        at = np.linspace(0, cells, size, endpoint=False)
        low, part = at.astype(int), at - at.astype(int)
        rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
        total += (rows[:, low] * (1 - part) + rows[:, low + 1] * part) * 0.6**octave
    return total / 0.5
