"""Made-up ground for the sampling tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

Cells = Callable[..., pa.Table]


@pytest.fixture(scope="session")
def make_cells() -> Cells:
    """A function that makes a CELLS table of whole tiles, with or without covariates.

    Three tiles lie near 38° N, `34HBH` near 34° S. Land cover is patchy with four classes; temperature peaks in
    July in the north and January in the south, with a gradient over the tile.
    """

    def cells(
        tiles: tuple[str, ...] = ("10SFE", "10SGE", "34HBH"),
        *,
        side: int = 14,
        land_cover: bool = True,
        weather: bool = True,
    ) -> pa.Table:
        row, col = np.divmod(np.tile(np.arange(side**2), len(tiles)), side)
        tile = np.repeat(tiles, side**2)
        south = np.char.startswith(tile, "34")
        lat = np.where(south, -34.0, 38.0) - 0.07 * row
        lon = np.where(south, 18.0, -123.0 + 1.1 * (tile == "10SGE")) + 0.09 * col
        columns: dict[str, object] = {
            "tile": pa.array(tile.tolist()),
            "cell_row": row.astype(np.int16),
            "cell_col": col.astype(np.int16),
            "lon": lon,
            "lat": lat,
            "area_km2": np.full(row.size, 58.98, dtype=np.float32),
        }
        if land_cover:
            shares = np.random.default_rng(5).dirichlet([0.3] * 4, row.size).astype(np.float32) * 0.999
            columns |= {f"lc_{code}": shares[:, i] for i, code in enumerate((10, 30, 40, 80))}
        if weather:
            month = np.arange(12)
            phase = np.cos((month - 6) / 6 * np.pi)[None] * np.where(south, -1.0, 1.0)[:, None]
            warm = 14.0 - 0.5 * row[:, None] + (8 + 0.3 * col[:, None]) * phase
            rain = 60.0 - 40.0 * phase + 3.0 * col[:, None]
            columns |= {f"wx_t{m + 1:02d}": warm[:, m].astype(np.float32) for m in range(12)}
            columns |= {f"wx_p{m + 1:02d}": rain[:, m].astype(np.float32) for m in range(12)}
        return pa.table(columns)

    return cells
