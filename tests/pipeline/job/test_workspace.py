"""The dataset folder: commits are final, folders are not mixed, full disks are said."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pyarrow as pa
import pytest

from geofm_pipeline import workspace
from geofm_pipeline.errors import OutputConflictError, ResourceError
from geofm_pipeline.waves import open_wave
from geofm_pipeline.workspace import Workspace, commit_table, committed, existing_workspace

TABLE = pa.table({"unit": pa.array([1, 2], pa.uint64())})


def _open(root: Path, seed: int = 0) -> Workspace:
    return open_wave(root, design={"seed": seed, "region": "demo"}, digest=f"digest-{seed}", extend=False)


def test_a_commit_is_found_again(tmp_path: Path) -> None:
    """The second run sees what the first committed, with the same digest."""
    space = _open(tmp_path / "out")
    digest = commit_table(space, space.plan, TABLE)
    assert committed(_open(tmp_path / "out"), space.plan) == digest
    assert committed(space, space.response) is None


def test_equal_tables_commit_to_equal_bytes(tmp_path: Path) -> None:
    """Nothing of time, place or run enters a committed table."""
    one, two = _open(tmp_path / "one"), _open(tmp_path / "two")
    assert commit_table(one, one.plan, TABLE) == commit_table(two, two.plan, TABLE)


def test_another_design_is_refused_and_named(tmp_path: Path) -> None:
    """The message names the option that differs."""
    space = _open(tmp_path / "out")
    commit_table(space, space.plan, TABLE)
    with pytest.raises(OutputConflictError, match="seed: 0 there, 1 now"):
        _open(tmp_path / "out", seed=1)


def test_without_a_plan_the_options_may_change(tmp_path: Path) -> None:
    """A run that failed before its plan leaves a folder that another attempt may use."""
    space = _open(tmp_path / "out")
    commit_table(space, space.scenes, TABLE)
    assert committed(_open(tmp_path / "out", seed=1), space.scenes) is None


def test_a_changed_commit_is_refused(tmp_path: Path) -> None:
    """A committed file edited by hand is never continued from."""
    space = _open(tmp_path / "out")
    commit_table(space, space.plan, TABLE)
    space.plan.write_bytes(b"edited")
    with pytest.raises(OutputConflictError, match="not what was committed"):
        committed(space, space.plan)


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder with other files is refused, nothing in it changes."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputConflictError, match="holds no dataset"):
        _open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputConflictError, match="no dataset folder"):
        existing_workspace(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A folder of a later version says to update."""
    space = _open(tmp_path / "out")
    value = json.loads(space.commits.read_text())
    space.commits.write_text(json.dumps({**value, "schema": 99}))
    with pytest.raises(OutputConflictError, match="schema 99"):
        existing_workspace(tmp_path / "out")


def test_a_full_disk_is_a_resource_error_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC names the remedy; the old file stays."""
    space = _open(tmp_path / "out")
    digest = commit_table(space, space.plan, TABLE)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workspace.pq, "write_table", full)
    with pytest.raises(ResourceError, match="free space"):
        commit_table(space, space.plan, TABLE)
    monkeypatch.undo()
    assert committed(space, space.plan) == digest
