"""A small dataset folder made from the contracts alone: real strata, plan and response over invented ground and looks,
and the store of tests/pipeline/report/fake_store.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from geofm_pipeline.fmask_counts import COUNTS, SCREENING
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.workspace import Workspace
from geofm_sampling import CELLS, LOOK, Design, build_frame, draw_master, fit_strata, plan_record, respond
from geofm_sampling.blocks import Split, draw_split
from geofm_sampling.hashing import hashed_uniform
from geofm_sampling.phases import phases_metadata
from geofm_sampling.response import Response
from geofm_sampling.tables import INFORMATION
from geofm_sampling.unit import unpack_units

from .fake_store import BANDS, CAUSE, DATES, FAILED, SIZE, seal_store, write_store

TILES = {"10SEG": (-122.5, 37.4), "10SFG": (-121.4, 37.4), "10SFH": (-121.35, 38.35)}
"""Tile → lon, lat of its middle, good enough for maps."""
CODES = (10, 30, 40, 50, 60, 80)
SIDE = 10
SEED = 0
STAGES = ("frame", "plan", "response", "store", "samples")
STORE_DIGEST = "c" * 64
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
    root: Path,
    *,
    until: str = "samples",
    samples: int = 40,
    south: bool = False,
    hostile: bool = False,
    rich: bool = False,
) -> Fake:
    """Write the folder as a run leaves it that stopped after a stage of STAGES.

    `rich` adds held-out blocks and overviews of the observable units; without it the folder has neither.
    """
    stages = STAGES[: STAGES.index(until) + 1]
    root.mkdir(parents=True, exist_ok=True)
    space, card = Workspace(root=root), _first_sections(hostile)
    cells, design = _cells(south), _design(samples, rich)
    strata = fit_strata(cells, clusters=3, seed=1)
    split = _split(cells, design) if rich else None
    frame = build_frame(cells, strata, years=(2022,), chip_size=SIZE, split=split)
    plan = draw_master(frame, design)
    _write_frame(space, frame, cells, strata.to_json())
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
        found = respond(plan, frame, design, lambda units: _look(units), inform=_inform)
        drawn_table = _with_places(found.table)
        pq.write_table(drawn_table, space.response)
        _write_screening(space, hostile)
        card |= _response_sections(found, samples)
    if "store" in stages:
        drawn = _drawn(drawn_table)
        failed = write_store(space.store, drawn)
    if "samples" in stages:
        _write_samples(space, found, drawn, frame, plan, hostile)
        card |= _final_sections(drawn.num_rows, failed, drawn, hostile)
        seal_store(space.store, training_units(pq.read_table(space.samples)), STORE_DIGEST)
    space.card.write_text(json.dumps(card))
    files = {"plan.parquet": "a" * 64} if "plan" in stages else {}
    waves = [{"wave": 1, "part": 1, "asked": samples, "design": {}, "digest": "d"}]
    space.commits.write_text(json.dumps({"schema": 2, "waves": waves, "files": files}))
    return Fake(root=root, frame=frame, plan=plan, response=found, failed=failed)


def _design(samples: int, rich: bool) -> Design:
    """Without held-out ground and overviews, or with both."""
    more: dict[str, object] = (
        {"heldout": 0.25, "heldout_samples": 16, "block_km": 30.0, "information": True, "entropy": 1.0} if rich else {}
    )
    return Design(
        samples=samples, years=(2022,), chip_size=SIZE, timesteps=DATES, floor=1, seed=SEED, spread=rich, **more
    )  # type: ignore[arg-type]


def _split(cells: pa.Table, design: Design) -> Split:
    """Blocks of 30 km, some of them held out."""
    lon, lat = (cells[name].to_numpy() for name in ("lon", "lat"))
    kind = np.zeros(lon.size, dtype=np.int64)
    chip = {"chip_km": 0.03 * SIZE, "seed": design.seed, "buffer_km": design.buffer_km, "block_km": design.block_km}
    return draw_split(lon, lat, kind, share=design.heldout, **chip)


def _inform(units: NDArray[np.uint64], granules: pa.Array) -> pa.Table:
    """Entropies by hash; descriptors in few clusters, so that some units look alike."""
    entropy = 2 + 3 * hashed_uniform(11, "entropy", units)
    kind = np.floor(3 * hashed_uniform(12, "kind", units))
    descriptor = np.stack([np.sin(kind * (band + 1)) * 0.2 for band in range(6)], axis=1)
    descriptor += 0.002 * hashed_uniform(13, "noise", units)[:, None]
    return INFORMATION.check(
        pa.table(
            {
                "unit": units,
                "entropy": entropy.astype(np.float32),
                "descriptor": pa.array(descriptor.astype(np.float32).tolist(), pa.list_(pa.float32())),
            }
        )
    )


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


def _write_frame(space: Workspace, frame: pa.Table, cells: pa.Table, strata: str) -> None:
    """One file per tile with the covariates of its cells."""
    space.frame.mkdir()
    (space.frame / "strata.json").write_text(strata)
    keys = [{name: table[name].to_pylist() for name in ("tile", "cell_row", "cell_col")} for table in (cells, frame)]
    cell = {key: i for i, key in enumerate(zip(*keys[0].values(), strict=True))}
    at = pa.array([cell[key] for key in zip(*keys[1].values(), strict=True)])
    for name in cells.column_names:
        if name.startswith(("lc_", "wx_")):
            frame = frame.append_column(name, cells[name].take(at))
    tiles = np.array(frame["tile"].to_pylist())
    for tile in np.unique(tiles):
        pq.write_table(frame.filter(pa.array(tiles == tile)), space.frame / f"{tile}.parquet")
    pq.write_table(pa.table({"block": pa.array([], pa.int32())}), space.frame / "blocks.parquet")


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


def _write_samples(
    space: Workspace, found: Response, drawn: pa.Table, frame: pa.Table, plan: pa.Table, hostile: bool
) -> None:
    at = np.searchsorted(frame["unit"].to_numpy(), drawn["unit"].to_numpy())
    failed = np.isin(np.arange(drawn.num_rows), FAILED)
    lon, lat = (frame[name].to_numpy()[at] for name in ("lon", "lat"))
    weight = np.where(failed, 0.0, 1 / drawn["pi_star"].to_numpy()) / _read_rate(drawn, failed)
    kept = ("shard", "row", "unit", "stratum", "granules", "dates", "pi1", "pi2_given_phase1", "pi_star", "p_dates")
    table = pa.table(
        {
            **{name: drawn[name] for name in (*kept, "clear", "entropy", "duplicates", "novelty")},
            **{name: frame[name].take(pa.array(at)) for name in ("area_km2", "year", "season", "block")},
            "wave": pa.array(np.ones(drawn.num_rows), pa.int16()),
            "part": pa.array(np.ones(drawn.num_rows), pa.int16()),
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
            "split": pa.array(np.where(failed, -1, drawn["split"].to_numpy()), pa.int8()),
            "state": [(HOSTILE if hostile else CAUSE) if bad else "written" for bad in failed],
        }
    )
    metadata = phases_metadata(_phases(found, drawn, failed, frame, plan))
    pq.write_table(table.replace_schema_metadata(metadata), space.samples)


def _group(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table["split"].to_numpy().astype(np.int64) * 1000 + table["stratum"].to_numpy())


def _read_rate(drawn: pa.Table, failed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the drawn units of each unit's group that could be read; 1 where none could."""
    group = _group(drawn)
    read = np.bincount(group, weights=~failed) / np.maximum(np.bincount(group), 1)
    return np.where(read > 0, read, 1.0)[group]


def _phases(found: Response, drawn: pa.Table, failed: NDArray[np.bool_], frame: pa.Table, plan: pa.Table) -> pa.Table:
    """One record per group that has units."""
    seen = found.table["observable"].to_numpy(zero_copy_only=False)
    tables = (frame, found.table, found.table.filter(pa.array(seen)), drawn, drawn.filter(pa.array(~failed)))
    counts = [np.bincount(np.maximum(_group(table), -1) + 1000, minlength=3000) for table in tables]
    names = plan_record(plan).names
    area = np.bincount(_group(frame) + 1000, weights=frame["area_km2"].to_numpy(), minlength=3000)
    rows = []
    for key in np.flatnonzero(counts[0])[np.flatnonzero(counts[0]) >= 1000].tolist():
        split, stratum = divmod(key - 1000, 1000)
        numbers = zip(("frame", "looked", "observable", "drawn", "written"), counts, strict=True)
        rows.append(
            {"wave": 1, "part": 1, "split": split, "stratum": stratum, "name": names[stratum], "lambda": 1.0}
            | {name: int(count[key]) for name, count in numbers}
            | {"frame_area_km2": float(area[key])}
        )
    return pa.Table.from_pylist(rows)


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


def training_units(samples: pa.Table) -> list[int]:
    """Written training chips."""
    found: list[int] = samples.filter(pa.array(samples["split"].to_numpy() == 0))["unit"].to_pylist()
    return found


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
    columns = {"N": "frame", "M": "master", "n1": "first_look", "n": "target"}
    strata = [
        {key: row[key] for key in ("stratum", "split", "name")} | {key: row[name] for key, name in columns.items()}
        for row in record.table().to_pylist()
        if row["frame"]
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
    units = table["unit"].to_pylist()
    return {
        "access": {
            "route": "auto",
            "login": True,
            "requests_per_second": 200.0,
            "services_changed": [],
            "stages": {
                "screening": {
                    "requests": 212,
                    "bytes_received": 310_000_000,
                    "retries": {"timeout": 1},
                    "failures": {},
                    "notes": {},
                },
                "pixels": {
                    "requests": 806,
                    "bytes_received": 92_500_000,
                    "retries": {"5xx server error": 3, "429 too many requests": 12},
                    "failures": {"no such file": 1},
                    "notes": {"waited for the rate limit": 2},
                },
            },
        },
        "read": {"requests": 720, "opens": 84, "bytes_requested": 92_400_000, "bytes_needed": 84_000_000, "retries": 2},
        "store": {
            "samples": drawn,
            "shards": 5,
            "bytes": 11_900_000,
            "digest": STORE_DIGEST,
            "complete": True,
            "tombstones": [{"unit": units[i], "cause": HOSTILE if hostile else CAUSE} for i in FAILED],
            "bands": [
                {"name": name, "mean": 0.05 + 0.03 * i, "std": 0.04, "share_nonpositive": 0.012, "count": 450_000}
                for i, name in enumerate(BANDS)
            ],
        },
        "verify": {"checked_bytes": 11_950_000, "ok": True, "problems": []},
    }
