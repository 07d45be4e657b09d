"""A finished dataset folder: checking it."""

from __future__ import annotations

from pathlib import Path

from geofm_pipeline.errors import InputError
from geofm_pipeline.store import VerifyReport
from geofm_pipeline.store import verify as verify_store
from geofm_pipeline.workspace import check_frame, committed, existing_workspace


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
    space = existing_workspace(folder)
    for table in (space.scenes, space.plan, space.response, space.samples):
        committed(space, table)
    if space.plan.exists():
        check_frame(space)
    if not (space.store / "zarr.json").exists():
        raise InputError(f"{folder} holds no store yet: its run stopped before writing; run the same command again")
    return verify_store(space.store, deep=deep)
