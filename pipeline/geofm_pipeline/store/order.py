"""Where each drawn unit lies in the store: (shard, row) as a pure function of the units, their strata and a seed.

*Cluster*: all drawn units of one tile in one season of one year; they share their granules' files. Clusters are
dealt whole to *write groups*, so that a group opens each file once; inside a group the rows are permuted. Dealing
is stratified: clusters of each stratum are spread evenly over the sequence of groups, so every group is a small
picture of the whole and a reader that scans shard by shard sees no region or season in one lump. A cluster is cut
only where it straddles the border of a group. Cost: one sort of n rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.store.spec import GROUP_SHARDS, SHARD_SIZE
from geofm_sampling.hashing import hashed_uniform, hashed_words

_SEASON_BITS = 10  # year (8) and season (2), the low bits of a unit id
_TILE_SHIFT = 25  # tile, above chip size (3), row (6) and column (6)


def assign_rows(
    units: NDArray[np.uint64],
    strata: NDArray[np.int32],
    *,
    seed: int,
    shard_size: int = SHARD_SIZE,
    group_shards: int = GROUP_SHARDS,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Shard and row of each unit; `shard * shard_size + row` takes every value of 0…n−1 once.

    Does not depend on the order in which the units are given. A store of at most one group is one global
    permutation.

    Parameters
    ----------
    units : (n,) distinct unit ids
    strata : (n,) stratum of each unit
    seed : any integer

    Raises
    ------
    ValueError
        When the lengths differ or a unit occurs twice.
    """
    ids = np.asarray(units, dtype=np.uint64)
    if ids.shape != strata.shape or np.unique(ids).size != ids.size:
        raise ValueError(f"assign_rows needs distinct units with one stratum each, got {ids.shape} and {strata.shape}")
    dealt = _deal(ids, np.asarray(strata), seed)
    group = np.empty(ids.size, dtype=np.int64)
    group[dealt] = np.arange(ids.size) // (shard_size * group_shards)
    final = np.lexsort((ids, hashed_words(seed, "store row", ids), group))
    index = np.empty(ids.size, dtype=np.int64)
    index[final] = np.arange(ids.size)
    return (index // shard_size).astype(np.int32), (index % shard_size).astype(np.int32)


def clusters(units: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Key of each unit's (tile, year, season) cluster, shape (n,)."""
    ids = np.asarray(units, dtype=np.uint64)
    season = ids & np.uint64((1 << _SEASON_BITS) - 1)
    return np.asarray((ids >> np.uint64(_TILE_SHIFT)) << np.uint64(_SEASON_BITS) | season)


def reading_order(units: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the units in the order in which a group is read and stored, shape (n,).

    Units of one cluster together, so that the files they share are opened once; does not depend on the given order.
    """
    ids = np.asarray(units, dtype=np.uint64)
    return np.lexsort((ids, clusters(ids)))


def _deal(units: NDArray[np.uint64], strata: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """Sequence in which units fill the groups: clusters by their dealt position, units of a cluster together."""
    keys, cluster, size = np.unique(clusters(units), return_inverse=True, return_counts=True)
    position = _spread(keys, _main_stratum(cluster, strata, len(keys)), size, seed)
    place = np.empty(len(keys), dtype=np.int64)
    place[np.lexsort((keys, position))] = np.arange(len(keys))
    return np.lexsort((units, place[cluster]))


def _main_stratum(cluster: NDArray[np.int64], strata: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """Most frequent stratum of each cluster, the smallest number among equals, shape (n clusters,)."""
    pairs, count = np.unique(np.stack([cluster, strata.astype(np.int64)]), axis=1, return_counts=True)
    ranked = np.lexsort((pairs[1], -count, pairs[0]))
    first = ranked[np.searchsorted(pairs[0][ranked], np.arange(n))]
    return np.asarray(pairs[1][first], dtype=np.int32)


def _spread(
    keys: NDArray[np.uint64], stratum: NDArray[np.int32], size: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Position in [0, 1) of each cluster: its stratum's clusters, shuffled, laid evenly by size with jitter."""
    shuffled = np.lexsort((keys, hashed_words(seed, "store cluster", keys), stratum))
    sizes, groups = size[shuffled].astype(np.float64), stratum[shuffled]
    _, start, inverse = np.unique(groups, return_index=True, return_inverse=True)
    total = np.add.reduceat(sizes, start)
    before = np.cumsum(sizes) - sizes
    before -= before[start][inverse]
    jitter = hashed_uniform(seed, "store jitter", keys[shuffled])
    position = np.empty(len(keys), dtype=np.float64)
    position[shuffled] = (before + jitter * sizes) / total[inverse]
    return position
