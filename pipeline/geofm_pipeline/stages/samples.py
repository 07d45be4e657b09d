"""Samples: the rows of samples.parquet and their weights, over all waves of a dataset folder."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from geofm_pipeline.config import SampleConfig
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.footprints import footprints
from geofm_pipeline.stages.frames import read_frame
from geofm_pipeline.stages.growing import looked_ranks
from geofm_pipeline.stages.respond import Responded
from geofm_pipeline.store import StoreSummary
from geofm_pipeline.workspace import Workspace, committed, existing_waves
from geofm_sampling import plan_record
from geofm_sampling.calibration import Margin, expanded_totals, rake, trim
from geofm_sampling.contract import Column, TableContract
from geofm_sampling.phases import phases_metadata
from geofm_sampling.plan import PlanRecord
from geofm_sampling.tables import RESPONSE
from geofm_sampling.unit import unpack_units
from geofm_sampling.weights import Groups, Looks, response_groups, sample_weights, wave_shares

SAMPLES_VERSION = "2"
"""Version of the columns of samples.parquet, in its metadata."""

SAMPLES = TableContract(
    name="samples",
    columns={
        "wave": Column(type=pa.int16(), meaning="wave of the sample, from 1"),
        "part": Column(type=pa.int16(), meaning="part of the frame: the wave that brought it"),
        "index": Column(type=pa.int64(), meaning="index in the wave's store, shard × 64 + row"),
        "shard": Column(type=pa.int32(), meaning="shard of the wave's store"),
        "row": Column(type=pa.int32(), meaning="row within the shard"),
        "unit": Column(type=pa.uint64(), meaning="packed unit id"),
        "tile": Column(type=pa.string(), meaning="MGRS tile"),
        "lon": Column(type=pa.float64(), meaning="longitude of the chip's centre, degrees east"),
        "lat": Column(type=pa.float64(), meaning="latitude of the chip's centre, degrees north"),
        "geometry": Column(type=pa.binary(), meaning="footprint, WKB polygon in lon/lat"),
        "area_km2": Column(type=pa.float32(), meaning="area of the cell, square kilometres"),
        "year": Column(type=pa.int16(), meaning="year of the first month of the anchor season"),
        "season": Column(type=pa.int8(), meaning="anchor season 0-3"),
        "land_cover": Column(type=pa.string(), meaning="land-cover group of the cell"),
        "climate": Column(type=pa.int16(), meaning="climate cluster of the cell"),
        "stratum": Column(type=pa.int32(), meaning="stratum number"),
        "block": Column(type=pa.int32(), meaning="split block of the cell's centre"),
        "granules": Column(type=pa.list_(pa.string()), meaning="granule ids in order of date"),
        "dates": Column(type=pa.list_(pa.int32()), meaning="days since 1970-01-01"),
        "sensors": Column(type=pa.list_(pa.int8()), meaning="0 L30, 1 S30"),
        "pi1": Column(type=pa.float64(), meaning="first-phase inclusion probability"),
        "pi2_given_phase1": Column(type=pa.float64(), meaning="second-phase probability given the look"),
        "pi_star": Column(type=pa.float64(), meaning="pi1 × pi2_given_phase1"),
        "p_dates": Column(type=pa.float64(), meaning="probability of the dates among all feasible sequences"),
        "entropy": Column(type=pa.float32(), meaning="spectral entropy of the overview, bits, or NaN"),
        "duplicates": Column(type=pa.float32(), meaning="estimated look-alikes in the stratum's frame, or NaN"),
        "novelty": Column(type=pa.float32(), meaning="distance from existing data, 0 to 1"),
        "weight_design": Column(type=pa.float64(), meaning="λ / (pi_star × read rate): the observable population"),
        "weight": Column(type=pa.float64(), meaning="weight_design after the trimming and raking asked for"),
        "weight_full": Column(type=pa.float64(), meaning="weight_design / clear rate: the observable and the hidden"),
        "clear": Column(type=pa.list_(pa.float32()), meaning="share of clear pixels per date, from screening"),
        "valid": Column(type=pa.list_(pa.float32()), meaning="share of valid pixels per date, as written"),
        "split": Column(type=pa.int8(), meaning="0 train, 1 held-out, 2 test of labelled stores, -1 tombstone"),
        "state": Column(type=pa.string(), meaning="written, or why it could not be read"),
    },
)
"""One row per attempted sample of all waves, in the order of wave and store; GeoParquet."""

WEIGHTS = ("weight_design", "weight", "weight_full")
OBSERVABLE = ("drawn", "observable")
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
}
"""GeoParquet metadata; without a crs the coordinates are longitude and latitude (OGC:CRS84)."""


def wave_rows(space: Workspace, responded: Responded, rows: pa.Table, summary: StoreSummary) -> pa.Table:
    """SAMPLES of one wave, weights still 0.

    Parameters
    ----------
    rows : the table that sealed the store (place, dates, sensors per row)
    """
    drawn, frame = responded.drawn, read_frame(space)
    units = drawn["unit"].to_numpy()
    at = pa.array(np.searchsorted(frame["unit"].to_numpy(), units))
    causes = {stone.index: f"{stone.granule} {stone.band}: {stone.cause}" for stone in summary.tombstones}
    shared = ("shard", "row", "unit", "stratum", "granules", "dates", "pi1", "pi2_given_phase1", "pi_star", "p_dates")
    of_frame = ("area_km2", "year", "season", "land_cover", "climate", "block")
    table = pa.table(
        {
            **{name: drawn[name] for name in (*shared, "clear", "entropy", "duplicates", "novelty")},
            **{name: frame[name].take(at) for name in of_frame},
            "wave": pa.array(np.full(drawn.num_rows, space.wave), pa.int16()),
            "part": pa.array(np.full(drawn.num_rows, space.part), pa.int16()),
            "index": rows["index"],
            "tile": pa.array(unpack_units(units).tile),
            "lon": rows["lon"],
            "lat": rows["lat"],
            "geometry": pa.array(shapely.to_wkb(footprints(units)), pa.binary()),
            "sensors": rows["sensor"],
            **{name: np.zeros(drawn.num_rows) for name in WEIGHTS},
            "valid": pa.array(list(summary.valid_share), pa.list_(pa.float32())),
            "split": pa.array(summary.splits, pa.int8()),
            "state": [causes.get(index, "written") for index in range(drawn.num_rows)],
        }
    )
    table = table.set_column(
        table.schema.get_field_index("land_cover"), "land_cover", table["land_cover"].cast(pa.string())
    )
    return SAMPLES.check(table)


def earlier_rows(space: Workspace) -> pa.Table:
    """SAMPLES of the waves before this one, as samples.parquet holds them.

    Raises
    ------
    OutputConflictError
        When they are not the samples that the responses drew.
    """
    if committed(space, space.samples) is None:
        raise OutputConflictError(f"{space.samples} is missing: restore it, an extension builds on it")
    table = pq.read_table(space.samples)
    table = SAMPLES.check(table.filter(pa.array(table["wave"].to_numpy() < space.wave)))
    for wave in existing_waves(space.root)[: space.wave - 1]:
        mine = table.filter(pa.array(table["wave"].to_numpy() == wave.wave))
        drawn = Responded(table=pq.read_table(wave.response), digest="").drawn
        if not all(np.array_equal(mine[name].to_numpy(), drawn[name].to_numpy()) for name in _SETTLED):
            raise OutputConflictError(
                f"{space.samples} does not hold the samples that wave {wave.wave} drew: it was changed by hand; "
                "restore it, it cannot be made again after an extension"
            )
    return table


_SETTLED = ("unit", "pi_star", "shard", "row")


def with_weights(space: Workspace, config: SampleConfig, table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The samples of all waves with their weights and the phases in the metadata, and what had to be said."""
    waves = [_Wave(wave) for wave in existing_waves(space.root)[: space.wave]]
    _share_out(waves)
    design, full = np.zeros(table.num_rows), np.zeros(table.num_rows)
    of_wave = table["wave"].to_numpy()
    written = table["split"].to_numpy() >= 0
    for wave in waves:
        mine = np.flatnonzero(of_wave == wave.space.wave)
        weights = sample_weights(
            group=wave.drawn_groups(table["unit"].to_numpy()[mine]),
            pi_star=table["pi_star"].to_numpy()[mine],
            written=written[mine],
            groups=wave.groups,
        )
        design[mine], full[mine] = weights.design, weights.full
    adjusted, whole, notes = _calibrated(config, waves, table, design, full)
    for name, values in zip(WEIGHTS, (design, adjusted, whole), strict=True):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    records = pa.concat_tables([wave.records(table) for wave in waves])
    metadata = {
        b"geo": json.dumps(_GEO).encode(),
        b"geofm_samples_version": SAMPLES_VERSION.encode(),
        **phases_metadata(records),
    }
    return SAMPLES.describe(table).replace_schema_metadata(metadata), notes


class _Wave:
    """One wave with its response, groups and frame."""

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.record: PlanRecord = plan_record(pq.read_table(space.plan))
        self.response = RESPONSE.check(pq.read_table(space.response))
        self.frame = read_frame(space)
        self.group = self.record.group(self.response)
        self.share: NDArray[np.float64] = np.ones(self.record.frame_units.size)

    @property
    def asked(self) -> NDArray[np.int64]:
        """Samples asked for in the split of each group, shape (G,)."""
        design = self.record.design
        return np.where(self.record.split == 0, design.samples, design.heldout_samples)

    @property
    def looks(self) -> tuple[NDArray[np.int64], ...]:
        """The wave's rows of :class:`geofm_sampling.weights.Looks`, in order of its fields, shape (G,) each."""
        groups, found = self.groups, looked_ranks(self.space)
        return self.asked, groups.looked, groups.observable, found.ranks, found.observable

    @property
    def groups(self) -> Groups:
        """Counts per group with the wave's share."""
        return response_groups(
            group=self.group, state=self.response["state"], frame=self.record.frame_units, share=self.share
        )

    def drawn_groups(self, units: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Group of each drawn unit."""
        known = self.response["unit"].to_numpy()
        order = np.argsort(known)
        return self.group[order[np.searchsorted(known[order], units)]]

    def labels(self, name: str) -> NDArray[np.str_]:
        """A column of the frame for each row of the response, as text."""
        at = np.searchsorted(self.frame["unit"].to_numpy(), self.response["unit"].to_numpy())
        values: NDArray[np.str_] = text_labels(self.frame, name)[at]
        return values

    def records(self, table: pa.Table) -> pa.Table:
        """PHASES of the wave: its groups with units in the frame."""
        mine = table.filter(pa.array(table["wave"].to_numpy() == self.space.wave))
        size, groups = self.record.frame_units.size, self.groups
        of_frame = self.record.group(self.frame)
        inside = of_frame >= 0
        area = np.bincount(of_frame[inside], weights=self.frame["area_km2"].to_numpy()[inside], minlength=size)
        drawn = self.drawn_groups(mine["unit"].to_numpy())
        written = drawn[mine["split"].to_numpy() >= 0]
        whole = pa.table(
            {
                "wave": np.full(size, self.space.wave, dtype=np.int16),
                "part": np.full(size, self.space.part, dtype=np.int16),
                "split": self.record.split,
                "stratum": self.record.stratum,
                "name": self.record.names * self.record.splits,
                "frame": self.record.frame_units,
                "looked": groups.looked,
                "seen": groups.seen,
                "observable": groups.observable,
                "drawn": np.bincount(drawn, minlength=size),
                "written": np.bincount(written, minlength=size),
                "lambda": self.share,
                "frame_area_km2": area,
            }
        )
        return whole.filter(pa.array(self.record.frame_units > 0))


def _share_out(waves: list[_Wave]) -> None:
    """Give each wave its share λ of the part it drew from."""
    for part in {wave.space.part for wave in waves}:
        mine = [wave for wave in waves if wave.space.part == part]
        columns = zip(*(wave.looks for wave in mine), strict=True)
        asked, looked, observable, ranks, found = (np.stack(column) for column in columns)
        looks = Looks(asked=asked, looked=looked, observable=observable, ranks=ranks, found=found)
        shares = wave_shares(looks, mine[0].record.frame_units)
        for wave, share in zip(mine, shares, strict=True):
            wave.share = share


def _calibrated(
    config: SampleConfig,
    waves: list[_Wave],
    table: pa.Table,
    design: NDArray[np.float64],
    full: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """`weight` and `weight_full` after trimming and raking each split by itself, and what had to be said."""
    adjusted, whole, notes = design.copy(), full.copy(), list[str]()
    stratum, split = table["stratum"].to_numpy().astype(np.int64), table["split"].to_numpy()
    if config.trim is not None:
        trimmed = trim(design, group=stratum + (int(stratum.max(initial=0)) + 1) * (split == 1), most=config.trim)
        adjusted = trimmed.weights
        notes.append(f"{trimmed.trimmed:,} weights above {config.trim:g} medians of their stratum were trimmed.")
    for code, name in ((0, "training"), (1, "held-out")) if config.raked else ():
        rows = np.flatnonzero(split == code)
        if not rows.size:
            continue
        for what, weights, observable in (("weight", adjusted, True), ("weight_full", whole, False)):
            margins = [_margin(margin, waves, table, rows, code, observable) for margin in config.raked]
            try:
                weights[rows] = rake(weights[rows], margins).weights
            except ValueError as error:
                notes.append(f"{what} of the {name} samples is not raked: {error}")
    return adjusted, whole, notes


def _margin(
    name: str, waves: list[_Wave], table: pa.Table, rows: NDArray[np.int64], split: int, observable: bool
) -> Margin:
    """Totals of the observable population as phase 1 estimates them, or those of the frame."""
    labels, sizes = [], []
    for wave in waves:
        if observable:
            pi1, mine = wave.response["pi1"].to_numpy(), wave.response["split"].to_numpy() == split
            mine &= np.isin(wave.response["state"].to_numpy(zero_copy_only=False), OBSERVABLE)
            labels.append(wave.labels(name)[mine])
            sizes.append((wave.share[wave.group] / np.where(pi1 > 0, pi1, 1.0))[mine])
        elif wave.space.wave == wave.space.part:
            labels.append(text_labels(wave.frame, name))
            sizes.append(np.ones(wave.frame.num_rows))
    totals = expanded_totals(np.concatenate(labels), np.concatenate(sizes))
    return Margin(name=name, labels=text_labels(table, name)[rows], totals=totals)


def text_labels(table: pa.Table, name: str) -> NDArray[np.str_]:
    """A column as text, shape (n,)."""
    return np.array(table[name].cast(pa.string()).to_pylist(), dtype=np.str_)
