"""A small dataset folder made from the contracts alone: real strata, plan and response over invented ground and looks,
pixels from a formula, and a store written by zarr-python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import zarr
from numpy.typing import NDArray

from geofm_pipeline.fmask_counts import COUNTS, SCREENING
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.workspace import Workspace
from geofm_sampling import CELLS, LOOK, Design, build_frame, draw_master, fit_strata, plan_record, respond
from geofm_sampling.hashing import hashed_uniform
from geofm_sampling.response import Response
from geofm_sampling.unit import unpack_units

TILES = {"10SEG": (-122.5, 37.4), "10SFG": (-121.4, 37.4), "10SFH": (-121.35, 38.35)}
"""Tile → lon, lat of its middle, good enough for maps."""
CODES = (10, 30, 40, 50, 60, 80)
SIDE = 10
SIZE, DATES, BANDS = 64, 3, 6
STAGES = ("frame", "plan", "response", "store", "samples")
HOSTILE = '<script>alert("x")</script><img src="http://evil.example/a.png">'


@dataclass(frozen=True, kw_only=True)
class Fake:
    """What the folder was made of, for the tests to compare with."""

    root: Path
    frame: pa.Table
    plan: pa.Table
    response: Response | None
    failed: int


def make_dataset(
    root: Path, *, until: str = "samples", samples: int = 40, south: bool = False, hostile: bool = False
) -> Fake:
    """Write the folder as a run leaves it that stopped after a stage of STAGES."""
    stages = STAGES[: STAGES.index(until) + 1]
    root.mkdir(parents=True, exist_ok=True)
    space, card = Workspace(root=root), _first_sections(hostile)
    cells, design = _cells(south), Design(samples=samples, years=(2022,), chip_size=SIZE, timesteps=DATES, floor=1)
    strata = fit_strata(cells, clusters=3, seed=1)
    frame = build_frame(cells, strata, years=(2022,), chip_size=SIZE)
    plan = draw_master(frame, design)
    _write_frame(space, frame, strata.to_json())
    card["frame"] = {
        "cells": cells.num_rows,
        "units": frame.num_rows,
        "coverage": {"once": 0.981, "never": 0.011, "twice": 0.008},
    }
    found, failed = None, 0
    if "plan" in stages:
        pq.write_table(plan, space.plan)
        card |= _plan_sections(plan, design)
    if "response" in stages:
        found = respond(plan, frame, design, lambda units: _look(units))
        drawn_table = _with_places(found.table)
        pq.write_table(drawn_table, space.response)
        _write_screening(space, hostile)
        card |= _response_sections(found, samples)
    if "store" in stages:
        drawn = _drawn(drawn_table)
        failed = _write_store(space, drawn)
    if "samples" in stages:
        _write_samples(space, drawn, frame, hostile)
        card |= _final_sections(drawn.num_rows, failed, drawn, hostile)
    space.card.write_text(json.dumps(card))
    files = {"plan.parquet": "a" * 64} if "plan" in stages else {}
    space.commits.write_text(json.dumps({"schema": 1, "design_digest": "d", "design": {}, "files": files}))
    return Fake(root=root, frame=frame, plan=plan, response=found, failed=failed)


def _cells(south: bool) -> pa.Table:
    rows = [(tile, r, c) for tile in TILES for r in range(20, 20 + SIDE) for c in range(20, 20 + SIDE)]
    tile, row, col = (np.array(values) for values in zip(*rows, strict=True))
    middle = np.array([TILES[name] for name in tile])
    lon = middle[:, 0] + (col - 24.5) * 0.1
    lat = (middle[:, 1] - (row - 24.5) * 0.088) * (-1 if south else 1)
    wave = np.sin(lon * 3) + np.cos(lat * 4)
    best = np.clip(((wave + 2) / 4 * len(CODES)).astype(int), 0, len(CODES) - 1)
    columns: dict[str, object] = {
        "tile": tile,
        "cell_row": row.astype(np.int16),
        "cell_col": col.astype(np.int16),
        "lon": lon,
        "lat": lat,
        "area_km2": np.full(lon.size, 95.0, np.float32),
    }
    for number, code in enumerate(CODES):
        columns[f"lc_{code}"] = np.where(best == number, 0.8, 0.03).astype(np.float32)
    height = np.clip(lon + 122.5, 0, 3)
    for month in range(12):
        columns[f"wx_t{month + 1:02d}"] = (12 - 9 * np.cos(month * np.pi / 6) - 4 * height).astype(np.float32)
        columns[f"wx_p{month + 1:02d}"] = (60 + 50 * np.cos(month * np.pi / 6) + 15 * height).astype(np.float32)
    return CELLS.check(pa.table(columns))


def granule(tile: str, day: int) -> str:
    """Id of the granule of a tile on a day since 1970-01-01."""
    date = np.datetime64(day, "D")
    year = int(str(date)[:4])
    number = (date - np.datetime64(f"{year}-01-01")).astype(int) + 1
    sensor = "L30" if day % 2 else "S30"
    return f"HLS.{sensor}.T{tile}.{year}{number:03d}T184500.v2.0"


_FIRST, _LAST = 18993, 19357  # 2022-01-01 and 2022-12-31
_DAYS = np.arange(_FIRST + 3, _LAST, 9)


def _look(units: NDArray[np.uint64]) -> pa.Table:
    """A granule every nine days; clouds by hash, more of them in winter."""
    unit = np.repeat(units, _DAYS.size)
    day = np.tile(_DAYS, units.size)
    chance = hashed_uniform(3, "cloud", unit * np.uint64(977) + day.astype(np.uint64))
    clear = np.clip(1.25 - chance * (0.8 + 0.9 * np.cos((day - _FIRST) / 365 * 2 * np.pi)), 0, 1)
    tiles = np.repeat(unpack_units(units).tile, _DAYS.size)
    return LOOK.check(
        pa.table(
            {
                "unit": unit,
                "granule_id": [granule(str(t), int(d)) for t, d in zip(tiles, day, strict=True)],
                "date": day.astype(np.int32),
                "covered": np.ones(day.size, np.float32),
                "clear": clear.astype(np.float32),
            }
        )
    )


def _write_frame(space: Workspace, frame: pa.Table, strata: str) -> None:
    space.frame.mkdir()
    (space.frame / "strata.json").write_text(strata)
    tiles = np.array(frame["tile"].to_pylist())
    for tile in np.unique(tiles):
        pq.write_table(frame.filter(pa.array(tiles == tile)), space.frame / f"{tile}.parquet")


def _with_places(table: pa.Table) -> pa.Table:
    drawn = np.array(table["state"].to_pylist()) == "drawn"
    index = np.cumsum(drawn) - 1
    for name, values in (("shard", index // 8), ("row", index % 8)):
        column = pa.array(np.where(drawn, values, -1).astype(np.int32))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _drawn(table: pa.Table) -> pa.Table:
    chosen = table.filter(pa.array(table["shard"].to_numpy() >= 0))
    return chosen.sort_by([("shard", "ascending"), ("row", "ascending")])


def pixels(unit: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image [T, B, H, W] and fmask [T, H, W] of a unit: hills, a cloud and its shadow, some a corner without data."""
    rng = np.random.default_rng(unit % 2**32)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    image, fmask = np.zeros((DATES, BANDS, SIZE, SIZE)), np.full((DATES, SIZE, SIZE), 64, np.uint8)
    phase = rng.uniform(0, 6, 6)
    field = np.sin(7 * x + phase[0]) * np.cos(6 * y + phase[1]) + 0.4 * np.sin(19 * x + 23 * y + phase[2])
    rough = 0.06 * rng.standard_normal((SIZE, SIZE))
    for date in range(DATES):
        green = 0.5 + 0.4 * np.sin(date * 2 + phase[3])
        soil = np.clip(0.5 + 0.35 * field + rough, 0, 1)
        base = (
            np.array([0.04, 0.06, 0.05, 0.25, 0.15, 0.08])[:, None, None]
            + soil * np.array([0.04, 0.05 + 0.02 * green, 0.09 - 0.05 * green, 0.10, 0.16, 0.14])[:, None, None]
        )
        cx, cy, radius = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.3)
        cloud = np.clip(1.3 - np.hypot(x - cx, y - cy) / radius + 2 * rough, 0, 1)
        image[date] = base * (1 - cloud) + 0.55 * cloud
        fmask[date][cloud > 0.15] |= 2
        shadow = (np.hypot(x - cx - 0.12, y - cy - 0.1) < radius) & (cloud <= 0.15)
        image[date][:, shadow] *= 0.55
        fmask[date][shadow] |= 8
    counts = np.round(image * 10_000).astype(np.int16)
    if unit % 5 == 0:
        gone = x + y > 1.8
        counts[:, :, gone], fmask[:, gone] = -9999, 255
    return counts, fmask


def _write_store(space: Workspace, drawn: pa.Table) -> int:
    """The pixels of the drawn units, two of them tombstones."""
    store = zarr.open_group(str(space.store), mode="w", zarr_format=3)
    n = drawn.num_rows
    image = store.create_array(
        "image", shape=(n, DATES, BANDS, SIZE, SIZE), chunks=(1, DATES, BANDS, SIZE, SIZE), dtype="int16",
        fill_value=-9999, chunk_key_encoding={"name": "default", "separator": "."},
    )  # fmt: skip
    fmask = store.create_array(
        "fmask", shape=(n, DATES, SIZE, SIZE), chunks=(1, DATES, SIZE, SIZE), dtype="uint8", fill_value=255
    )
    for index, unit in enumerate(drawn["unit"].to_pylist()):
        if index not in FAILED:
            image[index], fmask[index] = pixels(unit)
    store.attrs["geofm"] = {"shard_size": 8, "valid_pixel": {"bits": ["cloud", "adjacent", "shadow"]}}
    return len(FAILED)


FAILED = (3, 11)
"""Samples whose pixels could not be read."""
CAUSE = "HLS.L30.T10SFG.2022100T184500.v2.0 B04: HTTP 404"


def _write_samples(space: Workspace, drawn: pa.Table, frame: pa.Table, hostile: bool) -> None:
    at = np.searchsorted(frame["unit"].to_numpy(), drawn["unit"].to_numpy())
    failed = np.isin(np.arange(drawn.num_rows), FAILED)
    lon, lat = (frame[name].to_numpy()[at] for name in ("lon", "lat"))
    weight = np.where(failed, 0.0, 1 / drawn["pi_star"].to_numpy())
    kept = (
        "shard",
        "row",
        "unit",
        "stratum",
        "granules",
        "dates",
        "pi1",
        "pi2_given_phase1",
        "pi_star",
        "p_dates",
        "clear",
    )
    table = pa.table(
        {
            **{name: drawn[name] for name in kept},
            "wave": pa.array(np.ones(drawn.num_rows), pa.int16()),
            "index": pa.array(np.arange(drawn.num_rows), pa.int64()),
            "tile": [HOSTILE if hostile else str(t) for t in unpack_units(drawn["unit"].to_numpy()).tile],
            "lon": lon,
            "lat": lat,
            "geometry": shapely.to_wkb(shapely.box(lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01)),
            "sensors": pa.array(
                [[int(g[4] == "S") for g in row] for row in drawn["granules"].to_pylist()], pa.list_(pa.int8())
            ),
            "weight_design": weight,
            "weight": weight,
            "weight_full": weight,
            "valid": drawn["clear"],
            "split": pa.array(np.where(failed, -1, 0), pa.int8()),
            "state": [(HOSTILE if hostile else CAUSE) if bad else "written" for bad in failed],
        }
    )
    pq.write_table(table, space.samples)


def _write_screening(space: Workspace, hostile: bool) -> None:
    """The granules of the looks, with one that claims a clear sky for a sliver and one that could not be used."""
    ids = [(tile, int(day), granule(tile, int(day))) for tile in TILES for day in _DAYS]
    measured = np.round(100 * hashed_uniform(5, "measured", np.arange(len(ids), dtype=np.uint64)) ** 1.6)
    claimed, coverage = measured + (np.arange(len(ids)) % 3 - 1), np.full(len(ids), 100.0)
    claimed[4], measured[4], coverage[4] = 0.0, 62.0, 3.0
    bad = np.arange(len(ids)) == 7
    cause = HOSTILE if hostile else "the file ends after 4,096 bytes"
    shared = {"granule_id": [name for _, _, name in ids], "tile": [tile for tile, _, _ in ids]}
    table = pa.table(
        {
            **shared,
            "date": pa.array([day for _, day, _ in ids], pa.int32()),
            "state": np.where(bad, cause, "ok"),
            "read": ~bad,
            "bytes": np.where(bad, 0, 1_300_000),
            "cloud_cover": measured.astype(np.float32),
            "spatial_coverage": coverage.astype(np.float32),
            **{name: pa.array([[]] * len(ids), pa.list_(pa.uint32())) for name in COUNTS},
        }
    )
    folder = space.screening / "64px-rule14"
    folder.mkdir(parents=True)
    pq.write_table(SCREENING.check(table), folder / "all.parquet")
    scenes = SCENES.schema().empty_table()
    columns = {name: scenes[name] for name in SCENES.columns} | shared
    columns |= {"cloud_cover": pa.array(np.clip(claimed, 0, 100).astype(np.float32))}
    pq.write_table(pa.table({name: columns[name] for name in ("granule_id", "tile", "cloud_cover")}), space.scenes)


def _first_sections(hostile: bool) -> dict[str, object]:
    region = HOSTILE if hostile else "bay"
    return {
        "asked": {"region": region, "years": "2022", "samples": "40", "min_clear": "0.8", "weather": "None"},
        "command": f"geofm-sample --region {region} --years 2022 --samples 40",
        "versions": {"python": "3.11.9", "numpy": "2.1.0"},
        "inputs": {
            "region": region,
            "bbox": [-123.0, 36.9, -120.9, 38.9],
            "years": [2022],
            "catalog": "items.json",
            "land_cover": "cover.tif",
            "land_cover_note": None,
            "weather": "weather.nc",
            "weather_note": None,
        },
        "search": {
            "granules": 123,
            "by_sensor": {"L30": 60, "S30": 63},
            "tiles": sorted(TILES),
            "first_day": "2022-01-04",
            "last_day": "2022-12-28",
            "missing_assets": 1,
        },
        "said": [HOSTILE] if hostile else ["40 samples were asked for, 38 could be written."],
        "seconds": {"search": 0.31, "plan": 1.27},
    }


def _plan_sections(plan: pa.Table, design: Design) -> dict[str, object]:
    record = plan_record(plan)
    lines = zip(record.names, record.frame_units, record.master_units, record.first_look, record.target, strict=True)
    strata = [
        {"stratum": h, "name": name, "N": int(size), "M": int(master), "n1": int(first), "n": int(target)}
        for h, (name, size, master, first, target) in enumerate(lines)
        if size
    ]
    needs = {"granules_to_screen": 120, "screening_bytes": 150e6, "block_requests": 720, "read_bytes": 90e6}
    return {
        "plan": {"digest": "b" * 64, "design": json.loads(design.to_json()), "strata": strata},
        "projection": {**needs, "write_bytes": 17e6, "memory_bytes": 400e6, "seconds": 42.0},
    }


def _response_sections(found: Response, samples: int) -> dict[str, object]:
    states = {row["values"]: row["counts"] for row in found.table["state"].value_counts().to_pylist()}
    return {
        "response": {"asked": samples, "looked": found.table.num_rows, "states": states},
        "screening": {"granules": 123, "bytes": 158_600_000, "refused": []},
    }


def _final_sections(drawn: int, failed: int, table: pa.Table, hostile: bool) -> dict[str, object]:
    bands = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
    units = table["unit"].to_pylist()
    return {
        "read": {"requests": 720, "opens": 84, "bytes_requested": 92_400_000, "bytes_needed": 84_000_000, "retries": 2},
        "store": {
            "samples": drawn,
            "shards": 5,
            "bytes": 11_900_000,
            "digest": "c" * 64,
            "complete": True,
            "tombstones": [{"unit": units[i], "cause": HOSTILE if hostile else CAUSE} for i in FAILED],
            "bands": [
                {"name": name, "mean": 0.05 + 0.03 * i, "std": 0.04, "share_nonpositive": 0.012, "count": 450_000}
                for i, name in enumerate(bands)
            ],
        },
        "verify": {"checked_bytes": 11_950_000, "ok": True, "problems": []},
    }
