"""The write groups of an import as tasks, from a settled plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.importing.images import Image
from geofm_pipeline.importing.reader import ImageChipReader, Meaning
from geofm_pipeline.store import GroupResult, RowRequest, StoreSpec, write_group
from geofm_pipeline.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One write group; everything a worker needs to write it."""

    store: Path
    spec: StoreSpec
    parts: Path
    group: int
    requests: Sequence[RowRequest]
    images: Mapping[str, Image]
    """Those of the requests, by name."""
    meaning: Meaning
    threads: int
    """That encode, beside the one that reads."""


def write_task(task: WriteTask) -> GroupResult:
    """Read, encode and commit one group; running it twice writes the same bytes."""
    reader = ImageChipReader(task.images, task.meaning)
    return write_group(task.store, task.spec, task.parts, task.group, task.requests, reader, threads=task.threads)


def row_requests(chosen: pa.Table, images: Mapping[str, Image], size: int) -> list[RowRequest]:
    """Requests of a CHOSEN table, in order of (shard, row)."""
    scenes = {name: image.scene for name, image in images.items()}
    return [
        RowRequest(
            index=index,
            chip=ChipRequest(
                unit=row["unit"],
                tile=row["place"],
                row_off=row["image_row"],
                col_off=row["image_col"],
                size=size,
                scenes=tuple(scenes[name] for name in row["granules"]),
            ),
            split=row["split"],
        )
        for index, row in enumerate(chosen.drop_columns("geometry").to_pylist())
    ]


def task_of(
    space: Workspace,
    spec: StoreSpec,
    group: int,
    requests: Sequence[RowRequest],
    images: Mapping[str, Image],
    meaning: Meaning,
    threads: int,
) -> WriteTask:
    """The task of one group; `requests` are those of all groups, in order of their index."""
    mine = [requests[index] for index in spec.group_rows(group)]
    names = {scene.granule_id for request in mine for scene in request.chip.scenes}
    return WriteTask(
        store=space.store,
        spec=spec,
        parts=space.parts,
        group=group,
        requests=mine,
        images={name: images[name] for name in sorted(names)},
        meaning=meaning,
        threads=threads,
    )
