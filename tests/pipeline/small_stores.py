"""The small store that tests of writer and loader share."""

from __future__ import annotations

from geofm_pipeline.store import StoreSpec


def small_spec(**changes: object) -> StoreSpec:
    """A spec of 21 samples of 2 × 6 × 16 × 16 in 6 shards and 3 groups, with any field changed."""
    fields: dict[str, object] = {
        "n": 21,
        "timesteps": 2,
        "height": 16,
        "width": 16,
        "seed": 1,
        "shard_size": 4,
        "group_shards": 2,
        "provenance": {"plan_digest": "aa", "response_digest": "bb"},
    }
    return StoreSpec(**{**fields, **changes})  # type: ignore[arg-type]
