"""Stage 1, search: the granules of region and years, frozen as scenes.parquet."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geofm_pipeline.card import Card
from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.progress import Progress
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.workspace import Workspace, commit_table, committed


def search(space: Workspace, inputs: Inputs, progress: Progress, card: Card) -> pa.Table:
    """SCENES of the request: from the folder if a run before found them, else from the catalogue."""
    if committed(space, space.scenes):
        return SCENES.check(pq.read_table(space.scenes))
    progress.say(f"search: {inputs.catalog}")
    scenes = find_scenes(inputs.catalog, inputs.region, inputs.years, progress=progress.say)
    commit_table(space, space.scenes, scenes)
    facts = _facts(scenes)
    card.set("search", facts)
    progress.say(
        f"search: {scenes.num_rows:,} granules of {len(set(scenes['tile'].to_pylist())):,} tiles, "
        f"{facts['first_day']} to {facts['last_day']}"
    )
    return scenes


def _facts(scenes: pa.Table) -> dict[str, object]:
    counts = pc.value_counts(scenes["sensor"].cast(pa.string())).to_pylist()
    days = scenes["time"].cast(pa.date32())
    return {
        "granules": scenes.num_rows,
        "by_sensor": {entry["values"]: entry["counts"] for entry in counts},
        "tiles": sorted(set(scenes["tile"].to_pylist())),
        "first_day": str(pc.min(days).as_py()),
        "last_day": str(pc.max(days).as_py()),
        "missing_assets": int(pc.sum(pc.list_value_length(scenes["missing"])).as_py() or 0),
    }


def day_text(day: int) -> str:
    """Days since 1970-01-01 as YYYY-MM-DD."""
    return str(date(1970, 1, 1) + timedelta(day))
