"""Stage 5, publish: seal the store, verify it, and write samples.parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geofm_pipeline.card import Card
from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.hls.bands import BANDS, SENSOR_CODE
from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_pipeline.progress import Progress
from geofm_pipeline.stages.plan import Planned
from geofm_pipeline.stages.respond import Responded
from geofm_pipeline.store import StoreSpec, StoreSummary, finalise
from geofm_pipeline.workspace import Workspace, commit_table
from geofm_sampling.contract import Column, TableContract
from geofm_sampling.unit import unpack_units
from geofm_sampling.weights import Weights, sample_weights

SAMPLES_VERSION = "1"
"""Version of the columns of samples.parquet, in its metadata."""

SAMPLES = TableContract(
    name="samples",
    columns={
        "wave": Column(type=pa.int16(), meaning="wave of the sample, from 1"),
        "index": Column(type=pa.int64(), meaning="index in the wave's store, shard × 64 + row"),
        "shard": Column(type=pa.int32(), meaning="shard of the wave's store"),
        "row": Column(type=pa.int32(), meaning="row within the shard"),
        "unit": Column(type=pa.uint64(), meaning="packed unit id"),
        "tile": Column(type=pa.string(), meaning="MGRS tile"),
        "lon": Column(type=pa.float64(), meaning="longitude of the chip's centre, degrees east"),
        "lat": Column(type=pa.float64(), meaning="latitude of the chip's centre, degrees north"),
        "geometry": Column(type=pa.binary(), meaning="footprint, WKB polygon in lon/lat"),
        "stratum": Column(type=pa.int32(), meaning="stratum number"),
        "granules": Column(type=pa.list_(pa.string()), meaning="granule ids in order of date"),
        "dates": Column(type=pa.list_(pa.int32()), meaning="days since 1970-01-01"),
        "sensors": Column(type=pa.list_(pa.int8()), meaning="0 L30, 1 S30"),
        "pi1": Column(type=pa.float64(), meaning="first-phase inclusion probability"),
        "pi2_given_phase1": Column(type=pa.float64(), meaning="second-phase probability given the look"),
        "pi_star": Column(type=pa.float64(), meaning="pi1 × pi2_given_phase1"),
        "p_dates": Column(type=pa.float64(), meaning="probability of the dates among all feasible sequences"),
        "weight_design": Column(type=pa.float64(), meaning="1 / (pi_star × read rate): the observable population"),
        "weight": Column(type=pa.float64(), meaning="weight_design after trimming and raking (none in this version)"),
        "weight_full": Column(
            type=pa.float64(), meaning="weight_design / observable rate: all units of strata with chips"
        ),
        "clear": Column(type=pa.list_(pa.float32()), meaning="share of clear pixels per date, from screening"),
        "valid": Column(type=pa.list_(pa.float32()), meaning="share of valid pixels per date, as written"),
        "split": Column(type=pa.int8(), meaning="0 train, 1 held-out, 2 test of labelled stores, -1 tombstone"),
        "state": Column(type=pa.string(), meaning="written, or why it could not be read"),
    },
)
"""One row per attempted sample, in the order of the store; GeoParquet."""


def store_rows(drawn: pa.Table, frame: pa.Table, requests: Sequence[ChipRequest]) -> pa.Table:
    """The table that seals the store: place, dates and stratum of every row."""
    lon, lat = _places(drawn, frame)
    return pa.table(
        {
            "index": pa.array(np.arange(drawn.num_rows), pa.int64()),
            "unit": drawn["unit"],
            "lon": lon,
            "lat": lat,
            "date": drawn["dates"],
            "sensor": _sensors(requests),
            "stratum": drawn["stratum"],
            "split": pa.array(np.zeros(drawn.num_rows), pa.int8()),
        }
    )


def publish(
    space: Workspace,
    spec: StoreSpec,
    planned: Planned,
    responded: Responded,
    requests: Sequence[ChipRequest],
    progress: Progress,
    card: Card,
) -> StoreSummary:
    """Seal the store and write samples.parquet; safe to repeat."""
    rows = store_rows(responded.drawn, planned.frame, requests)
    summary = finalise(space.store, spec, space.work / "parts", rows)
    commit_table(space, space.samples, _samples(rows, responded, summary))
    for sentence in _weight_notes(responded, summary):
        if card.say(sentence):
            progress.say(f"write: {sentence}")
    card.set("read", _read_facts(summary))
    card.set("store", _store_facts(spec, summary))
    return summary


def _samples(rows: pa.Table, responded: Responded, summary: StoreSummary) -> pa.Table:
    drawn = responded.drawn
    units = drawn["unit"].to_numpy()
    causes = {stone.index: f"{stone.granule} {stone.band}: {stone.cause}" for stone in summary.tombstones}
    weights = _weights(responded, summary)
    shared = ("shard", "row", "unit", "stratum", "granules", "dates", "pi1", "pi2_given_phase1", "pi_star", "p_dates")
    table = pa.table(
        {
            **{name: drawn[name] for name in (*shared, "clear")},
            "wave": pa.array(np.ones(drawn.num_rows), pa.int16()),
            "index": rows["index"],
            "tile": pa.array(unpack_units(units).tile),
            "lon": rows["lon"],
            "lat": rows["lat"],
            "geometry": pa.array(shapely.to_wkb(footprints(units)), pa.binary()),
            "sensors": rows["sensor"],
            "weight_design": weights.design,
            "weight": weights.design,
            "weight_full": weights.full,
            "valid": pa.array(list(summary.valid_share), pa.list_(pa.float32())),
            "split": pa.array(summary.splits, pa.int8()),
            "state": [causes.get(index, "written") for index in range(drawn.num_rows)],
        }
    )
    return SAMPLES.describe(table).replace_schema_metadata(
        {b"geo": json.dumps(_GEO).encode(), b"geofm_samples_version": SAMPLES_VERSION.encode()}
    )


def _weight_notes(responded: Responded, summary: StoreSummary) -> list[str]:
    """What no weight stands for: strata that were looked at and have no written chip."""
    drawn = responded.drawn["stratum"].to_numpy()
    looked = set(responded.table["stratum"].to_pylist())
    written, attempted = set(drawn[summary.splits >= 0].tolist()), set(drawn.tolist())
    notes = []
    if lost := attempted - written:
        notes.append(
            f"All chips of {len(lost)} of {len(attempted)} strata could not be read: no weight stands for their units."
        )
    if empty := looked - attempted:
        notes.append(
            f"{len(empty)} of {len(looked)} strata have no observable unit: weight_full does not cover their ground."
        )
    return notes


_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
}
"""GeoParquet metadata; without a crs the coordinates are longitude and latitude (OGC:CRS84)."""


def _weights(responded: Responded, summary: StoreSummary) -> Weights:
    table, drawn = responded.table, responded.drawn
    strata = table["stratum"].to_numpy()
    seen = table["observable"].to_numpy(zero_copy_only=False)
    looked = np.bincount(strata)
    return sample_weights(
        stratum=drawn["stratum"].to_numpy(),
        pi_star=drawn["pi_star"].to_numpy(),
        written=summary.splits >= 0,
        looked=looked,
        observable=np.bincount(strata[seen], minlength=looked.size),
    )


def footprints(units: NDArray[np.uint64]) -> NDArray[np.object_]:
    """Lon/lat polygon of each unit's cell, shape (n,); a cell across the antimeridian keeps longitudes beyond ±180."""
    fields = unpack_units(units)
    polygons = np.empty(len(units), dtype=object)
    for tile in np.unique(fields.tile):
        here = np.flatnonzero(fields.tile == tile)
        grid, size = tile_grid(str(tile)), fields.chip_size[here]
        top, left = fields.cell_row[here] * size, fields.cell_col[here] * size
        rows = np.stack([top, top, top + size, top + size, top], axis=1)
        cols = np.stack([left, left + size, left + size, left, left], axis=1)
        lon, lat = unproject(grid.zone, *grid.xy(rows, cols))
        lon = lon[:, :1] + (lon - lon[:, :1] + 180.0) % 360.0 - 180.0
        polygons[here] = shapely.polygons(np.stack([lon, lat], axis=2))
    return polygons


def _places(drawn: pa.Table, frame: pa.Table) -> tuple[pa.Array, pa.Array]:
    at = np.searchsorted(frame["unit"].to_numpy(), drawn["unit"].to_numpy())
    return frame["lon"].take(pa.array(at)), frame["lat"].take(pa.array(at))


def _sensors(requests: Sequence[ChipRequest]) -> pa.Array:
    codes = [[SENSOR_CODE[scene.sensor] for scene in request.scenes] for request in requests]
    return pa.array(codes, pa.list_(pa.int8()))


def _read_facts(summary: StoreSummary) -> dict[str, int]:
    stats = summary.stats
    return {
        "requests": stats.requests,
        "opens": stats.opens,
        "bytes_requested": stats.bytes_requested,
        "bytes_needed": stats.bytes_needed,
        "retries": stats.retries,
    }


def _store_facts(spec: StoreSpec, summary: StoreSummary) -> dict[str, object]:
    return {
        "samples": summary.samples,
        "shards": spec.shards,
        "bytes": summary.bytes,
        "digest": summary.digest,
        "tombstones": [{"unit": s.unit, "cause": f"{s.granule} {s.band}: {s.cause}"} for s in summary.tombstones],
        "bands": [_band_facts(summary, band) for band in range(len(BANDS))],
        "complete": True,
    }


def _band_facts(summary: StoreSummary, band: int) -> dict[str, object]:
    """Mean and standard deviation of reflectance from the exact integer sums of the training split."""
    sums = summary.sums.get(0)
    count = sums.count[band] if sums else 0
    if not sums or not count:
        return {"name": BANDS[band], "mean": None, "std": None, "share_nonpositive": None, "count": 0}
    mean = sums.total[band] / count
    variance = max(0.0, (sums.squares[band] * count - sums.total[band] ** 2) / count**2)
    return {
        "name": BANDS[band],
        "mean": round(mean * 1e-4, 6),
        "std": round(variance**0.5 * 1e-4, 6),
        "share_nonpositive": round(sums.nonpositive[band] / count, 6),
        "count": int(count),
    }
