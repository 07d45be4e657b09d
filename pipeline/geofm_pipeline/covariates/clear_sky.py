"""Expected clear share of tiles, from the cloud tags that catalogues give with their granules."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from geofm_sampling.tables import CLEAR_PREFIX

CLEAR_COLUMN = f"{CLEAR_PREFIX}mean"


def expected_clear(scenes: pa.Table) -> Mapping[str, float]:
    """Mean of 1 − cloud cover of each tile of a SCENES table, 0 to 1; NaN where no granule has a usable tag.

    Months weigh alike, however many granules an archive has of each, so that a summer campaign does not make a place
    look clear all year. Tags that are missing or outside 0-100 are left out. The tag counts cloud and shadow over a
    whole granule: it says how often a tile is clear, not whether a chip is.
    """
    names = scenes["tile"].combine_chunks().dictionary_encode()
    tile = np.asarray(names.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    month = np.asarray(scenes["time"].cast(pa.date32()).cast(pa.int32()).to_numpy()).astype("datetime64[D]")
    month = month.astype("datetime64[M]").astype(np.int64) % 12
    cloud = np.asarray(scenes["cloud_cover"].to_numpy(), dtype=np.float64)
    usable = (cloud >= 0) & (cloud <= 100)
    place = (tile * 12 + month)[usable]
    size = len(names.dictionary) * 12
    count = np.bincount(place, minlength=size).reshape(-1, 12)
    clear = np.bincount(place, weights=1.0 - cloud[usable] / 100.0, minlength=size).reshape(-1, 12)
    months = (count > 0).sum(axis=1)
    means = np.where(count > 0, clear / np.maximum(count, 1), 0.0).sum(axis=1)
    shares = np.where(months > 0, means / np.maximum(months, 1), np.nan)
    return {str(name): float(share) for name, share in zip(names.dictionary.to_pylist(), shares, strict=True)}
