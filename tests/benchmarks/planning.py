"""Time and memory of planning: strata, split, frame, allocation and master draw of 1, 3 and 10 million units.

    python tests/benchmarks/planning.py [--units 1 3 10] [--heldout 0.1] [--json FILE]

Each size runs in a process of its own, so that its peak memory is its own. The cells are made up, in whole tiles,
with eight land-cover classes and twelve months of temperature and precipitation that vary with latitude and place.
`cpu s` is the CPU time of all threads, which other load disturbs least. Targets: 10 million units in at most 60 s and
4 GB on two cores; time linear in units.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from geofm_sampling import Design, build_frame, draw_master, fit_strata, plan_record
from geofm_sampling.blocks import draw_split
from geofm_sampling.strata import stratum_of_cells

CHIP, SIDE = 256, 14
YEARS = (2021, 2022)
UNITS_PER_CELL = 8  # four seasons of two years, and a ninth where one is cut in two at the turn of the year
CODES = (10, 20, 30, 40, 50, 60, 80, 90)


def make_cells(count: int) -> pa.Table:
    """At least `count` cells in whole tiles, as a CELLS table."""
    tiles = -(-count // SIDE**2)
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    names = [
        f"{1 + i % 60:02d}{'HJKLMNPQRSTUVW'[i // 60 % 14]}{letters[i // 840 % 24]}{letters[i // 20160 % 20]}"
        for i in range(tiles)
    ]
    tile = np.repeat(np.arange(tiles), SIDE**2)
    row, col = np.divmod(np.tile(np.arange(SIDE**2), tiles), SIDE)
    lon = -177.0 + 6.0 * (tile % 60) + 0.07 * col
    lat = -38.0 + 8.0 * (tile // 60 % 14) + 0.4 * (tile // 840) - 0.07 * row
    table = {
        "tile": pa.DictionaryArray.from_arrays(pa.array(tile.astype(np.int32)), pa.array(names)),
        "cell_row": row.astype(np.int16),
        "cell_col": col.astype(np.int16),
        "lon": lon,
        "lat": lat,
        "area_km2": np.full(tile.size, 58.98, dtype=np.float32),
    }
    return pa.table({**table, **_covariates(lon, lat)})


def _covariates(lon: np.ndarray, lat: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shares = rng.gamma(0.25, size=(lon.size, len(CODES))).astype(np.float32)
    shares /= shares.sum(axis=1, keepdims=True) * 1.0001
    columns = {f"lc_{code}": shares[:, i] for i, code in enumerate(CODES)}
    for month in range(12):
        phase = np.cos((month - 6.5) / 6 * np.pi) * np.sign(lat)
        warm = 27 - 0.008 * lat**2 + 0.4 * np.abs(lat) * phase + 3 * np.sin(np.radians(lon) * 5)
        rain = np.maximum(90 - np.abs(lat) + 80 * phase * np.cos(np.radians(lon) * 3), 0)
        columns[f"wx_t{month + 1:02d}"] = warm.astype(np.float32)
        columns[f"wx_p{month + 1:02d}"] = rain.astype(np.float32)
    return columns


def measure(millions: float, heldout: float) -> dict[str, float]:
    """Seconds of each step, CPU seconds of all and the peak memory of the process, in GB."""
    cells = make_cells(int(np.ceil(millions * 1e6 / UNITS_PER_CELL)))
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, time.process_time()
    design = Design(
        samples=50_000, years=YEARS, chip_size=CHIP, seed=1, heldout=heldout, heldout_samples=round(heldout * 50_000)
    )
    times = [time.perf_counter()]
    strata = fit_strata(cells, seed=1)
    times.append(time.perf_counter())
    split = None
    if heldout:
        split = draw_split(
            cells["lon"].to_numpy(),
            cells["lat"].to_numpy(),
            stratum_of_cells(cells, strata),
            share=heldout,
            block_km=design.block_km,
            buffer_km=design.buffer_km,
            chip_km=CHIP * 0.03,
            seed=1,
            names=strata.classes,
        )
    times.append(time.perf_counter())
    frame = build_frame(cells, strata, years=YEARS, chip_size=CHIP, split=split)
    times.append(time.perf_counter())
    plan = draw_master(frame, design)
    times.append(time.perf_counter())
    steps = np.diff(times)
    return {
        "units": frame.num_rows,
        "cells": cells.num_rows,
        "strata": int((plan_record(plan).frame_units > 0).sum()),
        "plan_rows": plan.num_rows,
        "strata_s": steps[0],
        "split_s": steps[1],
        "frame_s": steps[2],
        "draw_s": steps[3],
        "total_s": steps.sum(),
        "cpu_s": time.process_time() - cpu,
        "cells_gb": before,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def _child(millions: float, heldout: float, results: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    results.put(measure(millions, heldout))


def main() -> None:
    """Run all sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=float, nargs="+", default=[1, 3, 10], help="millions of units")
    parser.add_argument("--heldout", type=float, default=0.1, help="share of ground blocks held out; 0 for no split")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for millions in options.units:
        queue = context.SimpleQueue()
        process = context.Process(target=_child, args=(millions, options.heldout, queue))
        process.start()
        rows.append(queue.get())
        process.join()
        if len(rows) == 1:
            print(" | ".join(rows[0]))
        print(" | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
