"""Stage 5, publish: seal the store, verify it, and write samples.parquet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from geofm_pipeline.card import Card
from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.config import SampleConfig
from geofm_pipeline.hls.bands import SENSOR_CODE
from geofm_pipeline.progress import Progress
from geofm_pipeline.stages.plan import Planned
from geofm_pipeline.stages.respond import Responded
from geofm_pipeline.stages.samples import earlier_rows, wave_rows, with_weights
from geofm_pipeline.store import StoreSpec, StoreSummary, finalise
from geofm_pipeline.surroundings import store_facts
from geofm_pipeline.workspace import Workspace, commit_table


def store_rows(drawn: pa.Table, frame: pa.Table, requests: Sequence[ChipRequest]) -> pa.Table:
    """The table that seals the store: place, dates and stratum of every row."""
    lon, lat = _places(drawn, frame)
    return pa.table(
        {
            "index": pa.array(np.arange(drawn.num_rows), pa.int64()),
            "unit": drawn["unit"],
            "lon": lon,
            "lat": lat,
            "date": drawn["dates"],
            "sensor": _sensors(requests),
            "stratum": drawn["stratum"],
            "split": drawn["split"],
        }
    )


def publish(
    space: Workspace,
    config: SampleConfig,
    spec: StoreSpec,
    planned: Planned,
    responded: Responded,
    requests: Sequence[ChipRequest],
    progress: Progress,
    card: Card,
) -> StoreSummary:
    """Seal the store and write samples.parquet of all waves; safe to repeat."""
    rows = store_rows(responded.drawn, planned.frame, requests)
    summary = finalise(space.store, spec, space.parts, rows)
    samples = wave_rows(space, responded, rows, summary)
    if space.wave > 1:
        samples = pa.concat_tables([earlier_rows(space), samples])
    samples, notes = with_weights(space, config, samples)
    commit_table(space, space.samples, samples)
    for sentence in [*_weight_notes(responded, summary), *notes]:
        if card.say(sentence):
            progress.say(f"write: {sentence}")
    card.set("read", _read_facts(summary))
    stage = "pixels" if space.wave == 1 else f"pixels of wave {space.wave}"
    card.reached(stage, summary.stats.tally, whole=True)
    card.set("store", store_facts(spec, summary))
    return summary


def _weight_notes(responded: Responded, summary: StoreSummary) -> list[str]:
    """What no weight stands for: strata that were looked at and have no written chip."""
    drawn = responded.drawn["stratum"].to_numpy()
    looked = set(responded.table["stratum"].to_pylist())
    written, attempted = set(drawn[summary.splits >= 0].tolist()), set(drawn.tolist())
    notes = []
    if lost := attempted - written:
        notes.append(
            f"All chips of {len(lost)} of {len(attempted)} strata could not be read: no weight stands for their units."
        )
    if empty := looked - attempted:
        notes.append(
            f"{len(empty)} of {len(looked)} strata have no observable unit: weight_full does not cover their ground."
        )
    return notes


def _places(drawn: pa.Table, frame: pa.Table) -> tuple[pa.Array, pa.Array]:
    at = np.searchsorted(frame["unit"].to_numpy(), drawn["unit"].to_numpy())
    return frame["lon"].take(pa.array(at)), frame["lat"].take(pa.array(at))


def _sensors(requests: Sequence[ChipRequest]) -> pa.Array:
    codes = [[SENSOR_CODE[scene.sensor] for scene in request.scenes] for request in requests]
    return pa.array(codes, pa.list_(pa.int8()))


def _read_facts(summary: StoreSummary) -> dict[str, object]:
    stats = summary.stats
    return {
        "requests": stats.requests,
        "opens": stats.opens,
        "bytes_requested": stats.bytes_requested,
        "bytes_needed": stats.bytes_needed,
        "retries": stats.tally.retry_count,
        "tally": stats.tally.as_dict(),
    }
