"""Stage 1, search: the granules of region and years, frozen as scenes.parquet."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.access.settings import Access
from geofm_pipeline.addresses import shown
from geofm_pipeline.card import Card
from geofm_pipeline.catalogs import facts, find_scenes
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.progress import Progress
from geofm_pipeline.scenes import SCENES, sensing_days
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.user_cache import user_cache
from geofm_pipeline.workspace import Workspace, commit_table, committed


def search(space: Workspace, inputs: Inputs, access: Access, refresh: bool, progress: Progress, card: Card) -> pa.Table:
    """SCENES of the request: from the folder if a run before found them, else from the catalogue.

    Searches over a network are kept in the user's cache folder for other runs; `refresh` searches anew.

    Raises
    ------
    OutputConflictError
        When `refresh` is asked for and the folder has its granules already: its plan was drawn from them.
    """
    if committed(space, space.scenes):
        if refresh:
            raise OutputConflictError(
                f"--refresh cannot search anew for {space.root}: the granules of a dataset are frozen with its plan, "
                f"and {space.scenes.name} has them already; leave --refresh out to go on, or use another --out"
            )
        return SCENES.check(pq.read_table(space.scenes))
    progress.say(f"search: {shown(inputs.catalog)}")
    cache = user_cache() / "searches"
    scenes = find_scenes(
        inputs.catalog,
        inputs.region,
        inputs.years,
        access=access,
        cache=cache,
        refresh=refresh,
        progress=progress.say,
        counted=lambda tally: card.reached("search", tally),
    )
    for sentence in _notes(scenes):
        card.say(sentence)
    empty = sorted(set(inputs.years.years) - {int(year) for year in 1970 + _years_since_1970(scenes)})
    if empty:
        sentence = f"No granule was found in {', '.join(map(str, empty))}: units of these years are not observable."
        card.say(sentence)
        progress.say(f"search: {sentence}")
    commit_table(space, space.scenes, SCENES.describe(scenes))
    found = _facts(scenes)
    card.set("search", found)
    progress.say(
        f"search: {scenes.num_rows:,} granules of {len(set(scenes['tile'].to_pylist())):,} tiles, "
        f"{found['first_day']} to {found['last_day']}"
    )
    return scenes


def _notes(scenes: pa.Table) -> list[str]:
    """Sentences of the search that belong to the dataset."""
    notes = facts(scenes).get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _years_since_1970(scenes: pa.Table) -> NDArray[np.int64]:
    return sensing_days(scenes).astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64)


def _facts(scenes: pa.Table) -> dict[str, object]:
    days, known = sensing_days(scenes), facts(scenes)
    return {
        "granules": scenes.num_rows,
        "by_sensor": dict(Counter(scenes["sensor"].to_pylist())),
        "tiles": sorted(set(scenes["tile"].to_pylist())),
        "first_day": str(np.datetime64(int(days.min()), "D")),
        "last_day": str(np.datetime64(int(days.max()), "D")),
        "missing_assets": sum(len(missing or ()) for missing in scenes["missing"].to_pylist()),
        "service": known.get("service"),
        "tried": known.get("tried", []),
        "cached": known.get("cached"),
    }
