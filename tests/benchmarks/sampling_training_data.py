"""Ground, pool and training sets of sampling_training.py: one world, one split, many draws.

The pool is everything observable of the training ground and a held-out sample of blocks apart from it, written once by
`geofm-sample`: a unit has the same dates and pixels in every set. A set is drawn among the pool's training units and
copied into a store of its own. Each step does nothing where its result is there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_model import Store
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest, ReadStats
from geofm_pipeline.inform import Informer
from geofm_pipeline.screening import Screening
from geofm_pipeline.simulator import ArchiveSpec, build_archive
from geofm_pipeline.simulator.spec import Extent
from geofm_pipeline.stages.frames import read_frame
from geofm_pipeline.stages.write import row_requests
from geofm_pipeline.store import StoreSpec, create, finalise, is_sealed, pending_groups, write_group
from geofm_pipeline.workspace import Workspace
from geofm_pipeline.years import Years
from geofm_sampling import Design, draw_master, plan_record, respond
from geofm_sampling.draws import draw
from geofm_sampling.probabilities import capped_probabilities

Units = NDArray[np.uint64]

YEARS = (2022, 2023)
REGION = "9.26,45.72,10.12,46.36"
CHIP, DATES = 64, 2
SPEC = ArchiveSpec(
    tiles=("32TNS", "32TNR"),
    years=YEARS,
    seed=119,  # the demo's world
    extents={
        "32TNS": Extent(row=2112, col=640, height=1280, width=2304),
        "32TNR": Extent(row=0, col=640, height=1280, width=2304),
    },
    per_year=7,
    choices=5,
)
"""The demo's tiles, passes and world with four times the ground."""
SPLIT = {"heldout": 0.2, "block-km": 10, "buffer-km": 1}
HELDOUT = 1024
"""Held-out samples asked for, shared out equally among the strata."""
EVERYTHING = 1_000_000
"""More than the frame has: all observable units are drawn."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a training set is drawn, and how large it is."""

    design: str
    """uniform, ours, equal or entropy; see draw_set."""
    share: float
    """Of n."""

    @property
    def name(self) -> str:
        return f"{self.design}-{self.share:g}"


class Pool:
    """The dataset that all sets are drawn from."""

    def __init__(self, root: Path) -> None:
        self.space = Workspace(root=root)

    @cached_property
    def store(self) -> Store:
        return Store.open(self.space.store)

    @cached_property
    def samples(self) -> pa.Table:
        """Rows of samples.parquet in order of the store."""
        return pq.read_table(self.space.samples).sort_by("index")

    @cached_property
    def strata(self) -> tuple[str, ...]:
        """Names by number."""
        return plan_record(pq.read_table(self.space.plan)).names

    def column(self, name: str) -> NDArray[np.generic]:
        """A column of the samples."""
        return np.asarray(self.samples[name].to_numpy(zero_copy_only=False))

    @cached_property
    def training(self) -> Units:
        """Units of the training ground, ascending: the population of every draw."""
        return np.sort(self.column("unit")[self.column("split") == 0]).astype(np.uint64)

    @cached_property
    def heldout(self) -> NDArray[np.int64]:
        """Indices of the held-out samples."""
        return np.flatnonzero(self.column("split") == 1)

    def indices(self, units: Units) -> NDArray[np.int64]:
        """Where units lie in the store."""
        known = self.column("unit").astype(np.uint64)
        order = np.argsort(known)
        return np.asarray(order[np.searchsorted(known[order], units)])


def make_pool(folder: Path) -> Pool:
    """Simulate the ground and sample all of it: about five minutes of one core."""
    pool = Pool(folder / "pool")
    if not pool.space.report.exists():
        archive = build_archive(SPEC, folder / "archive")
        options: Mapping[str, object] = {
            "region": REGION,
            "years": ",".join(map(str, YEARS)),
            "out": pool.space.root,
            "catalog": archive.items,
            "land-cover": archive.land_cover,
            "weather": archive.weather,
            "chip-size": CHIP,
            "timesteps": DATES,
            "samples": EVERYTHING,
            "heldout-samples": HELDOUT,
            **SPLIT,
            "profile": "local",
            "workers": 0,
            "seed": 1,
        }
        command = [str(Path(sys.executable).parent / "geofm-sample"), *(f"--{k}={v}" for k, v in options.items())]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return pool


def draw_set(pool: Pool, arm: Arm, n: int, seed: int) -> Units:
    """Ascending units of one training set; another seed is a fresh draw."""
    size = round(arm.share * n)
    if arm.design in ("ours", "equal"):
        return _respond(pool, arm.design, size, seed)
    population = pool.training
    if arm.design == "uniform":
        chance, method = np.full(population.size, size / population.size), "random"
    else:  # chance in proportion to spectral entropy, nothing else
        entropy = pool.column("entropy")[pool.indices(population)].astype(np.float64)
        known = np.where(np.isfinite(entropy), entropy, np.nanmedian(entropy))
        chance, method = capped_probabilities(np.maximum(known, 1e-3), size), "pareto"
    picked = draw(chance, method=method, seed=seed, purpose=arm.name, ids=population)
    return np.asarray(population[picked])


def _respond(pool: Pool, kind: str, size: int, seed: int) -> Units:
    """What `geofm-sample` would draw with other seeds on this ground: both phases, looks from what was measured."""
    space = pool.space
    frame, scenes, source = read_frame(space), pq.read_table(space.scenes), ArchiveSource()
    base = plan_record(pq.read_table(space.plan)).design
    design = replace(base, samples=size, heldout_samples=0, seed=seed)
    if kind == "equal":
        design = replace(design, allocation="equal", information=False)
    screening = Screening(scenes, cache=space.screening, chip_size=CHIP, source=source)
    informer = Informer(scenes, cache=space.information, chip_size=CHIP, source=source)
    found = respond(
        draw_master(frame, design),
        frame,
        design,
        lambda units: _look(screening, frame, units, design),
        inform=lambda units, granules: informer.inform(units, granules.to_pylist()),
    ).table
    units = found["unit"].to_numpy()[found["state"].to_numpy(zero_copy_only=False) == "drawn"]
    assert units.size == size
    assert np.isin(units, pool.training).all(), "drawn is what the pool holds"
    return np.sort(units)


def _look(screening: Screening, frame: pa.Table, units: Units, design: Design) -> pa.Table:
    at = np.searchsorted(frame["unit"].to_numpy(), units)
    start, end = (frame[name].to_numpy()[at] for name in ("season_start", "season_end"))
    last = Years(years=design.years).last_day
    return screening.look(units, season_start=start, season_end=end, last_day=last, reach_days=design.reach)


class PoolReader:
    """A :class:`~geofm_pipeline.chips.ChipReader` that copies chips of the pool."""

    def __init__(self, pool: Pool) -> None:
        self.stats = ReadStats()
        self._pool = pool

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        """One chip per request, in order."""
        units = np.array([request.unit for request in requests], dtype=np.uint64)
        for request, index in zip(requests, self._pool.indices(units).tolist(), strict=True):
            sample = self._pool.store.sample(index)
            yield Chip(unit=request.unit, image=sample.image, fmask=sample.fmask)


def write_set(pool: Pool, units: Units, folder: Path) -> Path:
    """A store of some units of the pool, all of them for training; gives its path."""
    path, parts = folder / "store.zarr", folder / "parts"
    if is_sealed(path):
        return path
    rows = pool.samples.take(pa.array(pool.indices(units)))
    spec = StoreSpec(n=units.size, timesteps=DATES, height=CHIP, width=CHIP, seed=0, profile="local")
    requests = row_requests(rows, pq.read_table(pool.space.scenes))
    folder.mkdir(parents=True, exist_ok=True)
    create(path, spec)
    for group in pending_groups(path, spec, parts):
        own = spec.group_rows(group)
        write_group(path, spec, parts, group, requests[own.start : own.stop], PoolReader(pool), threads=1)
    columns = {name: rows[name] for name in ("unit", "lon", "lat", "stratum", "split")}
    index = pa.array(np.arange(units.size), pa.int64())
    finalise(path, spec, parts, pa.table({"index": index, "date": rows["dates"], "sensor": rows["sensors"], **columns}))
    return path
