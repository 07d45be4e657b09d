"""Further waves for a fake dataset: the same ground once more, with other digests; nothing observable, if wanted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.workspace import Workspace

from .fake_dataset import training_units
from .fake_store import seal_store

PHASES = b"geofm_phases"


def add_wave(
    root: Path, number: int, *, until: str = "samples", empty: bool = False, kept: int | None = None, dry: bool = False
) -> None:
    """Add wave `number`, a copy of the first in every table up to a stage (plan, response or samples).

    An `empty` one found nothing observable; `kept` cuts its published samples to so many.
    """
    first, wave = Workspace(root=root), Workspace(root=root, wave=number)
    shutil.copy(first.plan, wave.plan)
    _note(first, number, dry)
    if until == "plan":
        return
    response = pq.read_table(first.response)
    pq.write_table(without_anything_observable(response) if empty else response, wave.response)
    if until == "response" or empty:
        return
    shutil.copytree(first.store, wave.store)
    samples = pq.read_table(first.samples)
    fresh = samples.filter(pa.array(samples["wave"].to_numpy() == 1)).slice(0, kept)
    fresh = fresh.set_column(
        fresh.schema.get_field_index("wave"), "wave", pa.array(np.full(fresh.num_rows, number, np.int16))
    )
    phases = json.loads((samples.schema.metadata or {})[PHASES])
    phases += [row | {"wave": number} for row in phases if row["wave"] == 1]
    joined = pa.concat_tables([samples, fresh])
    pq.write_table(joined.replace_schema_metadata({PHASES: json.dumps(phases)}), first.samples)
    digest = str(number) * 64
    seal_store(wave.store, training_units(fresh), digest)
    _set_card(first, store={**_card(first)["store"], "digest": digest})  # type: ignore[dict-item]


def without_anything_observable(response: pa.Table) -> pa.Table:
    """The response with clouds over every unit."""
    n = response.num_rows
    changed = {
        "state": pa.array(["cloud"] * n),
        "observable": pa.array([False] * n),
        "shard": pa.array([-1] * n, pa.int32()),
        "row": pa.array([-1] * n, pa.int32()),
    }
    for name, column in changed.items():
        response = response.set_column(response.schema.get_field_index(name), name, column)
    return response


def line_of(number: int, *, dry: bool = False) -> str:
    """The command of a wave."""
    return f"geofm-sample --region bay --samples {40 * number} --extend{' --dry-run' if dry else ''}"


def _note(space: Workspace, number: int, dry: bool) -> None:
    """The wave in commits.json, its command in the card."""
    noted = json.loads(space.commits.read_text())
    noted["waves"].append({**noted["waves"][0], "wave": number, "design": {"years": "2022"}})
    noted["files"][f"plan-{number:04d}.parquet"] = "d" * 64
    space.commits.write_text(json.dumps(noted))
    card = _card(space)
    runs = card.get("commands", [{"line": card["command"], "dry_run": False}])
    assert isinstance(runs, list)
    _set_card(space, commands=[*runs, {"line": line_of(number, dry=dry), "dry_run": dry}])


def _card(space: Workspace) -> dict[str, object]:
    found: dict[str, object] = json.loads(space.card.read_text())
    return found


def _set_card(space: Workspace, **sections: object) -> None:
    space.card.write_text(json.dumps(_card(space) | sections))
