"""The order of a store: every row once, groups balanced, clusters kept together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_pipeline.store import assign_rows
from geofm_pipeline.store.order import clusters
from geofm_sampling.unit import pack_tile


def _units(n: int, tiles: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """n distinct units over the given number of tiles, four seasons of 2022."""
    tile = np.array([pack_tile(f"10S{'ABCDEFGH'[i // 20]}{'ABCDEFGHJKLMNPQRSTUV'[i % 20]}") for i in range(tiles)])
    slots = rng.choice(tiles * 4 * 3249, size=n, replace=False)
    which, cell = slots // 3249, slots % 3249
    season, year = which % 4, 52
    word = tile[which // 4].astype(np.uint64) << np.uint64(25)
    low = (cell // 57) << 16 | (cell % 57) << 10 | year << 2 | season
    return np.asarray(word | low.astype(np.uint64))


@given(n=st.integers(1, 400), seed=st.integers(0, 2**63), shard=st.integers(1, 9), group=st.integers(1, 5))
def test_rows_are_filled_without_holes(n: int, seed: int, shard: int, group: int) -> None:
    """shard × K + row takes every value of 0…n−1 once, whatever the sizes."""
    rng = np.random.default_rng(n)
    units = _units(n, 5, rng)
    shards, rows = assign_rows(
        units, rng.integers(0, 4, n).astype(np.int32), seed=seed, shard_size=shard, group_shards=group
    )
    assert np.array_equal(np.sort(shards.astype(int) * shard + rows), np.arange(n))
    assert rows.max() < shard


@given(seed=st.integers(0, 1000))
def test_the_order_of_the_input_does_not_matter(seed: int) -> None:
    """The place of a unit depends on the set of units, never on the order in which they are listed."""
    rng = np.random.default_rng(seed)
    units, strata = _units(300, 7, rng), rng.integers(0, 5, 300).astype(np.int32)
    shuffled = rng.permutation(300)
    for first, second in zip(
        assign_rows(units, strata, seed=seed, shard_size=4, group_shards=4),
        assign_rows(units[shuffled], strata[shuffled], seed=seed, shard_size=4, group_shards=4),
        strict=True,
    ):
        assert np.array_equal(first[shuffled], second)


def test_a_small_store_is_one_global_permutation() -> None:
    """Up to one group, neighbours in the store are unrelated: no more of one cluster than chance gives."""
    rng = np.random.default_rng(0)
    units, strata = _units(1024, 16, rng), np.zeros(1024, np.int32)
    shards, rows = assign_rows(units, strata, seed=3)
    keys = clusters(units)[np.argsort(shards.astype(int) * 64 + rows)]
    assert (keys[1:] == keys[:-1]).mean() < 0.04  # 64 clusters: 1/64 by chance


def test_clusters_stay_in_one_group() -> None:
    """A (tile, season) cluster is cut only where it straddles the border of two groups."""
    rng = np.random.default_rng(1)
    units = _units(8000, 40, rng)
    shards, _ = assign_rows(units, rng.integers(0, 9, 8000).astype(np.int32), seed=5, shard_size=16, group_shards=16)
    pairs = np.unique(np.stack([clusters(units), (shards // 16).astype(np.uint64)]), axis=1).shape[1]
    groups = int(shards.max()) // 16 + 1
    assert pairs <= np.unique(clusters(units)).size + groups - 1


def test_every_group_is_a_small_picture_of_the_whole() -> None:
    """Clusters of each stratum are spread evenly: no group has twice its share of a stratum, tile order has five
    times as much."""
    rng = np.random.default_rng(2)
    units = np.sort(_units(16_000, 160, rng))
    strata = ((clusters(units) >> np.uint64(10)) % np.uint64(97) // np.uint64(14)).astype(np.int32)
    shards, _ = assign_rows(units, strata, seed=5, shard_size=16, group_shards=64)
    dealt = _imbalance(shards // 64, strata)
    in_tile_order = _imbalance((np.arange(16_000) // 1024).astype(np.int32), strata)
    assert dealt < 0.5
    assert in_tile_order > 5 * dealt


def _imbalance(group: NDArray[np.int32], strata: NDArray[np.int32]) -> float:
    """Mean over strata and full groups of |share in the group / share overall − 1|."""
    full = int(group.max())
    table = np.zeros((full + 1, int(strata.max()) + 1))
    np.add.at(table, (group, strata), 1)
    share = table[:full] / table[:full].sum(axis=1, keepdims=True)
    return float(np.abs(share / (table.sum(axis=0) / table.sum()) - 1).mean())


def test_seeds_give_different_orders() -> None:
    """Another seed is another permutation."""
    units, strata = _units(200, 4, np.random.default_rng(0)), np.zeros(200, np.int32)
    first, second = (assign_rows(units, strata, seed=seed)[1] for seed in (1, 2))
    assert (first != second).any()


def test_twice_the_same_unit_is_refused() -> None:
    """A unit that occurs twice cannot have one place."""
    with pytest.raises(ValueError, match="distinct units"):
        assign_rows(np.array([7, 7], np.uint64), np.zeros(2, np.int32), seed=0)
