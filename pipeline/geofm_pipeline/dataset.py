"""A finished dataset folder: checking it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from geofm_pipeline.errors import InputError, OutputConflictError
from geofm_pipeline.store import VerifyReport
from geofm_pipeline.store import verify as verify_store
from geofm_pipeline.store.report import combined
from geofm_pipeline.workspace import Workspace, check_frame, committed, existing_waves, is_settled


def verify_dataset(folder: Path, *, deep: bool = True) -> VerifyReport:
    """Verify a dataset folder (every committed table, the frame, the store) or a bare store.zarr.

    Raises
    ------
    InputError
        When `folder` is neither.
    OutputConflictError
        When a committed table was changed by hand.
    """
    if (folder / "zarr.json").exists():
        return verify_store(folder, deep=deep)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name a dataset folder or a store.zarr")
    # An extension that was planned and not carried out leaves the dataset what it was.
    waves = [space for space in existing_waves(folder) if space.wave == 1 or is_settled(space)]
    reports = [_verify_wave(space, deep=deep) for space in waves]
    _check_samples(waves)
    return combined(reports)


def _check_samples(waves: Sequence[Workspace]) -> None:
    """samples.parquet must hold every wave whose store is there."""
    if committed(waves[0], waves[0].samples) is None:
        return
    held = set(pq.read_table(waves[0].samples, columns=["wave"])["wave"].to_pylist())
    lost = [space.wave for space in waves if space.wave not in held]
    if lost:
        raise OutputConflictError(
            f"{waves[0].samples} lacks the samples of wave {', '.join(map(str, lost))}: restore it, or repeat the "
            "commands of these waves in order (card.json has them)"
        )


def _verify_wave(space: Workspace, *, deep: bool) -> VerifyReport:
    for table in (space.scenes, space.plan, space.response, space.samples):
        committed(space, table)
    if space.plan.exists():
        check_frame(space)
    if not (space.store / "zarr.json").exists():
        raise InputError(
            f"{space.root} holds no {space.store.name} yet: its run stopped before writing; run the same command again"
        )
    return verify_store(space.store, deep=deep)
