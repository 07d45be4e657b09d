"""Stage 4, write: the drawn chips, one Dask task per write group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.cluster import Runner
from geofm_pipeline.cog.reader import BlockChipReader
from geofm_pipeline.hls.bands import BANDS, FMASK, band_file
from geofm_pipeline.progress import Progress
from geofm_pipeline.scenes import SceneRef, asset_href
from geofm_pipeline.store import GroupResult, StoreSpec, pending_groups, write_group
from geofm_sampling.unit import unpack_units

READ_THREADS = 2
"""Per worker: one decodes while another waits for the disk or the network."""


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One write group; everything a worker needs to write it, from anywhere."""

    store: Path
    spec: StoreSpec
    parts: Path
    scratch: Path
    group: int
    requests: Sequence[tuple[int, ChipRequest]]
    """(global index, request) of every sample of the group."""


def write_task(task: WriteTask) -> GroupResult:
    """Read, encode and commit one group; running it twice writes the same bytes."""
    return write_group(
        task.store, task.spec, task.parts, task.scratch, task.group, task.requests, BlockChipReader(threads=READ_THREADS)
    )


def write(
    store: Path,
    spec: StoreSpec,
    work: Path,
    requests: Sequence[ChipRequest],
    runner: Runner,
    progress: Progress,
) -> None:
    """Write every group that is not written yet; `requests` are in order of the global index."""
    parts, scratch = work / "parts", work / "scratch"
    size = spec.shard_size * spec.group_shards
    tasks = [
        WriteTask(
            store=store,
            spec=spec,
            parts=parts,
            scratch=scratch,
            group=group,
            requests=list(enumerate(requests))[group * size : (group + 1) * size],
        )
        for group in pending_groups(store, spec, parts)
    ]
    missing = sum(len(task.requests) for task in tasks)
    if missing < len(requests):
        progress.say(f"write: {len(requests) - missing:,} of {len(requests):,} chips are written already")
    results = runner.run(write_task, tasks)
    for _ in progress.count(results, total=missing, label="write", unit="chips", size=lambda r: len(tasks[r[0]].requests)):
        pass


def scene_refs(scenes: pa.Table) -> Mapping[str, SceneRef]:
    """Granule id → SceneRef of every row; equal objects are shared, so a group of chips pickles small."""
    days = scenes["time"].cast(pa.date32()).cast(pa.int32()).to_pylist()
    columns = (scenes[name].to_pylist() for name in ("granule_id", "sensor", "href_template", "hrefs", "missing"))
    return {
        granule: _scene_ref(granule, sensor, day, template, dict(hrefs or ()), missing or [])
        for day, granule, sensor, template, hrefs, missing in zip(days, *columns, strict=True)
    }


def _scene_ref(
    granule: str, sensor: str, day: int, template: str, overrides: dict[str, str], missing: list[str]
) -> SceneRef:
    known = "L30" if sensor == "L30" else "S30"

    def href(band: str) -> str:
        if band_file(known, band) in missing:
            return ""
        return asset_href(granule_id=granule, sensor=known, band=band, template=template, overrides=overrides)

    return SceneRef(
        granule_id=granule, sensor=known, date=day, bands=tuple(href(band) for band in BANDS), fmask=href(FMASK)
    )


def chip_requests(drawn: pa.Table, scenes: Mapping[str, SceneRef]) -> list[ChipRequest]:
    """Requests of drawn RESPONSE rows, which are in order of (shard, row)."""
    units = drawn["unit"].to_numpy()
    fields = unpack_units(units)
    return [
        ChipRequest(
            unit=int(unit),
            tile=str(tile),
            row_off=int(row * size),
            col_off=int(col * size),
            size=int(size),
            scenes=tuple(scenes[granule] for granule in granules),
        )
        for unit, tile, size, row, col, granules in zip(
            units, fields.tile, fields.chip_size, fields.cell_row, fields.cell_col, drawn["granules"].to_pylist(),
            strict=True,
        )
    ]
