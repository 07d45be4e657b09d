"""Stage 1, search: the granules of region and years, frozen as scenes.parquet."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.card import Card
from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.progress import Progress
from geofm_pipeline.scenes import SCENES, sensing_days
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.workspace import Workspace, commit_table, committed


def search(space: Workspace, inputs: Inputs, progress: Progress, card: Card) -> pa.Table:
    """SCENES of the request: from the folder if a run before found them, else from the catalogue."""
    if committed(space, space.scenes):
        return SCENES.check(pq.read_table(space.scenes))
    progress.say(f"search: {inputs.catalog}")
    scenes = find_scenes(inputs.catalog, inputs.region, inputs.years, progress=progress.say)
    empty = sorted(set(inputs.years.years) - {int(year) for year in 1970 + _years_since_1970(scenes)})
    if empty:
        sentence = f"No granule was found in {', '.join(map(str, empty))}: units of these years are not observable."
        card.say(sentence)
        progress.say(f"search: {sentence}")
    commit_table(space, space.scenes, SCENES.describe(scenes))
    facts = _facts(scenes)
    card.set("search", facts)
    progress.say(
        f"search: {scenes.num_rows:,} granules of {len(set(scenes['tile'].to_pylist())):,} tiles, "
        f"{facts['first_day']} to {facts['last_day']}"
    )
    return scenes


def _years_since_1970(scenes: pa.Table) -> NDArray[np.int64]:
    return sensing_days(scenes).astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64)


def _facts(scenes: pa.Table) -> dict[str, object]:
    days = sensing_days(scenes)
    return {
        "granules": scenes.num_rows,
        "by_sensor": dict(Counter(scenes["sensor"].to_pylist())),
        "tiles": sorted(set(scenes["tile"].to_pylist())),
        "first_day": str(np.datetime64(int(days.min()), "D")),
        "last_day": str(np.datetime64(int(days.max()), "D")),
        "missing_assets": sum(len(missing or ()) for missing in scenes["missing"].to_pylist()),
    }
