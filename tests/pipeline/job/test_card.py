"""The card remembers how a folder came about."""

from __future__ import annotations

import json
from pathlib import Path

from geofm_pipeline.card import Card


def _lines(path: Path) -> list[str]:
    return [run["line"] for run in json.loads(path.read_text())["commands"]]


def test_the_command_is_that_of_the_first_full_run(tmp_path: Path) -> None:
    """A dry run before it, and other workers, waves or dry runs after it, do not replace it; all are kept in order."""
    path = tmp_path / "card.json"
    lines = ["run --dry-run", "run", "run --workers 4", "run", "run --samples 99", "run --dry-run"]
    for line in lines:
        card = Card(path)  # each run opens the card anew
        card.ran(line, dry_run="--dry-run" in line)
        card.set("plan", {"digest": "d"})
    assert json.loads(path.read_text())["command"] == "run"
    assert _lines(path) == ["run --dry-run", "run", "run --workers 4", "run --samples 99"]


def test_until_then_it_is_the_first_dry_run(tmp_path: Path) -> None:
    """There is a command as soon as there is a plan."""
    path = tmp_path / "card.json"
    Card(path).ran("run --dry-run", dry_run=True)
    assert json.loads(path.read_text())["command"] == "run --dry-run"


def test_a_run_without_a_plan_is_forgotten(tmp_path: Path) -> None:
    """What failed before its plan binds to nothing, so its command reproduces nothing."""
    path = tmp_path / "card.json"
    Card(path).ran("run --years 1999", dry_run=False)
    Card(path).ran("run --years 2022", dry_run=False)
    assert json.loads(path.read_text())["command"] == "run --years 2022"
    assert _lines(path) == ["run --years 2022"]
