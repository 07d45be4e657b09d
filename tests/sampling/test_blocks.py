"""Held-out blocks and their buffers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyproj import Transformer
from scipy.spatial import cKDTree
from scipy.stats import binom

from geofm_sampling.block_grid import EARTH_KM, BlockGrid
from geofm_sampling.blocks import Split, draw_split, enough_blocks, reach_km
from geofm_sampling.covariates import WORLDCOVER_GROUPS, dominant_groups
from geofm_sampling.hashing import hashed_uniform

Floats = NDArray[np.float64]


def vectors(lon: Floats, lat: Floats) -> Floats:
    """Unit vectors, shape (..., 3)."""
    lam, phi = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def split_of(lon: Floats, lat: Floats, kind: NDArray[np.int64] | None = None, **changes: object) -> Split:
    wanted = {"share": 0.2, "block_km": 100.0, "buffer_km": 5.0, "chip_km": 7.68, "seed": 1} | changes
    kind = np.zeros(lon.size, dtype=np.int64) if kind is None else kind
    return draw_split(lon, lat, kind, **wanted)  # type: ignore[arg-type]


def scattered(cells: int, west: float, south: float, width: float, height: float) -> tuple[Floats, Floats]:
    """Random points of a box; longitudes run on over the antimeridian."""
    rng = np.random.default_rng(8)
    lon = west + width * rng.random(cells)
    return (lon + 180.0) % 360.0 - 180.0, south + height * rng.random(cells)


# --- no leak


def chips(epsg: int, east: tuple[float, float], north: tuple[float, float]) -> tuple[Floats, Floats, Floats]:
    """Longitude, latitude and 32 points on the edge, geocentric km, of a net of 7.68-km chips of a UTM zone."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(*east, 7680.0), np.arange(*north, 7680.0)))
    lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
    t = np.linspace(-3840.0, 3840.0, 9)[:-1]
    dx = np.concatenate([t, np.full(8, 3840.0), -t, np.full(8, -3840.0)])
    dy = np.concatenate([np.full(8, 3840.0), -t, np.full(8, -3840.0), t])
    ring = Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4978", always_xy=True)
    px, py = x[:, None] + dx, y[:, None] + dy
    points = np.stack(ring.transform(px, py, np.zeros_like(px)), axis=-1) / 1000.0
    return np.asarray(lon), np.asarray(lat), points


@pytest.mark.parametrize(
    "zones",
    [
        [(32610, (600e3, 900e3), (4000e3, 4250e3)), (32611, (100e3, 400e3), (4003e3, 4253e3))],
        [(32660, (600e3, 900e3), (5600e3, 5850e3)), (32601, (100e3, 400e3), (5601e3, 5851e3))],
        [(32633, (400e3, 700e3), (8900e3, 9150e3)), (32635, (300e3, 600e3), (8902e3, 9152e3))],
        [(32736, (200e3, 800e3), (9880e3, 10000e3)), (32636, (203e3, 803e3), (0.0, 120e3))],
    ],
    ids=["two zones", "antimeridian", "82 degrees north", "equator"],
)
@pytest.mark.parametrize("block_km", [30.0, 80.0])
def test_training_and_held_out_footprints_stay_apart(
    zones: list[tuple[int, tuple[float, float], tuple[float, float]]], block_km: float
) -> None:
    """On the ellipsoid, over zones and overlaps, no two footprints of the two sides are nearer than the buffer."""
    parts = [chips(*zone) for zone in zones]
    lon, lat, ring = (np.concatenate(values) for values in zip(*parts, strict=True))
    gaps = []
    for seed in range(6):
        split = split_of(lon, lat, block_km=block_km, share=0.1, seed=seed).split
        training, heldout = (ring[split == side].reshape(-1, 3) for side in (0, 1))
        if heldout.size:
            gaps.append(float(np.min(cKDTree(training).query(heldout)[0])))
    assert len(gaps) >= 4
    assert min(gaps) >= 5.0
    assert min(gaps) < 12.0


def test_overlapping_cells_of_two_tiles_share_their_fate() -> None:
    """Two cells with one centre are on one side, whatever tile or zone they belong to."""
    lon, lat = scattered(500, 170.0, 60.0, 20.0, 8.0)
    split = split_of(np.tile(lon, 2), np.tile(lat, 2))
    assert np.array_equal(split.split[:500], split.split[500:])
    assert np.array_equal(split.p_eligible[:500], split.p_eligible[500:])


# --- probabilities


def test_frequencies_over_seeds_equal_the_published_probabilities() -> None:
    """P(eligible) and P(held-out) are right for every cell, near the pole, on the antimeridian and in rare classes.

    2,000 seeds, 60 cells, 120 binomial frequencies with limits of 1e-6 each: the chance of a false alarm is 1.2e-4.
    """
    lon, lat = (
        np.concatenate(parts)
        for parts in zip(
            scattered(30, 176.0, -40.0, 8.0, 6.0),
            scattered(15, -180.0, 88.0, 360.0, 2.0),
            scattered(15, 0.0, 50.0, 9.0, 4.0),
            strict=True,
        )
    )
    kind = np.where(np.arange(60) % 20 == 3, 1, 0)
    draws, free, held = 2000, np.zeros(60), np.zeros(60)
    for seed in range(draws):
        split = split_of(lon, lat, kind, buffer_km=20.0, share=0.15, seed=seed)
        free += split.split == 0
        held += split.split == 1
    assert len(set(split.p_heldout.tolist())) == 2
    assert np.unique(split.p_eligible).size > 3
    for count, p in ((free, split.p_eligible), (held, split.p_heldout)):
        assert np.all((binom.cdf(count, draws, p) > 5e-7) & (binom.sf(count - 1, draws, p) > 5e-7))


# --- stability


def test_the_order_of_rows_does_not_matter() -> None:
    """Shuffled cells get the identical split."""
    lon, lat = scattered(3000, -100.0, 30.0, 12.0, 8.0)
    kind = np.random.default_rng(1).integers(0, 9, lon.size)
    order = np.random.default_rng(2).permutation(lon.size)
    one, two = split_of(lon, lat, kind), split_of(lon[order], lat[order], kind[order])
    for field in ("block", "split", "p_eligible", "p_heldout"):
        assert np.array_equal(getattr(one, field)[order], getattr(two, field))
    assert one.blocks.equals(two.blocks)
    assert one.notes == two.notes


def test_an_extension_keeps_the_split_of_old_ground() -> None:
    """With the frozen blocks, more ground changes neither side nor probability of an old cell, also across waves."""
    lon, lat = scattered(4000, -100.0, 30.0, 14.0, 8.0)
    kind = np.where((lon < -97.0) & (lat > 37.0), 1, 0)
    old = lon < -93.0
    first = split_of(lon[old], lat[old], kind[old])
    more = split_of(lon, lat, kind, frozen=first.blocks)
    for field in ("block", "split", "p_eligible", "p_heldout"):
        assert np.array_equal(getattr(first, field), getattr(more, field)[old])
    assert set(np.round(more.p_heldout[~old], 12)) == {0.2} | (
        set(np.round(first.p_heldout, 12)) & set(np.round(more.p_heldout[~old], 12))
    )
    only_new = split_of(lon[~old], lat[~old], kind[~old], frozen=first.blocks)
    assert np.array_equal(only_new.split, more.split[~old])
    assert np.array_equal(only_new.p_eligible, more.p_eligible[~old])
    assert set(first.blocks["block"].to_pylist()) <= set(only_new.blocks["block"].to_pylist())
    third = split_of(lon[old], lat[old], kind[old], frozen=only_new.blocks)
    assert np.array_equal(third.split, first.split)


def test_frozen_blocks_of_another_split_are_refused() -> None:
    """Another seed or another block size is no extension."""
    lon, lat = scattered(2000, -100.0, 30.0, 12.0, 8.0)
    blocks = split_of(lon, lat).blocks
    with pytest.raises(ValueError, match="another seed"):
        split_of(lon, lat, frozen=blocks, seed=2)
    with pytest.raises(ValueError, match="another split"):
        split_of(lon, lat, frozen=blocks, block_km=1000.0)
    with pytest.raises(ValueError, match="another split"):
        split_of(lon, lat, frozen=pa.concat_tables([blocks, blocks]))


# --- rare classes


def test_rare_classes_raise_the_chance_of_their_blocks() -> None:
    """A class in K blocks gets min(1/2, 2/K) where the share gives fewer than two in expectation; others the share."""
    lon, lat = scattered(20_000, 0.0, 40.0, 40.0, 20.0)
    block = BlockGrid(block_km=100.0).of(lon, lat)
    distinct = np.unique(block)
    kind = np.zeros(lon.size, dtype=np.int64)
    kind[np.isin(block, distinct[:3])] = 1
    kind[np.isin(block, distinct[100:112])] = 2
    kind[np.isin(block, distinct[300:400])] = 3
    split = split_of(lon, lat, kind, share=0.1, names=("common", "rarest", "rare"))
    p = dict(zip(split.blocks["block"].to_pylist(), split.blocks["p"].to_pylist(), strict=True))
    assert {round(p[b], 12) for b in distinct[:3].tolist()} == {0.5}
    assert {round(p[b], 12) for b in distinct[100:112].tolist()} == {round(1 / 6, 12)}
    assert {round(p[b], 12) for b in np.setdiff1d(distinct, [*distinct[:3], *distinct[100:112]]).tolist()} == {0.1}
    assert any("2 classes (rarest, rare)" in note and "15 blocks" in note for note in split.notes)


def test_raised_chances_hold_out_twice_the_share_at_most() -> None:
    """Where every class is rare, the expected held-out share of the cells stays at twice the share."""
    lon, lat = scattered(2000, 0.0, 40.0, 6.0, 3.0)
    split = split_of(lon, lat, BlockGrid(block_km=100.0).of(lon, lat).astype(np.int64) % 50, share=0.1, seed=3)
    assert split.p_heldout.mean() == pytest.approx(0.2)
    assert split.p_heldout.min() >= 0.1


def test_what_one_side_lacks_is_said() -> None:
    """Classes without a held-out or training cell are named; a split without held-out blocks says so."""
    lon, lat = scattered(3000, -100.0, 30.0, 12.0, 8.0)
    base = split_of(lon, lat)
    kind = np.where(base.split == 1, 1, np.where(lon < -99.5, 2, 0))
    split = split_of(lon, lat, kind, names=("plain", "hidden", "shown"))
    said = " ".join(split.notes)
    assert "blocks of 100 km are held out, with" in said
    lacking = [set(np.unique(kind)) - set(np.unique(kind[split.split == side])) for side in (1, 0)]
    assert ("not estimable" in said) == bool(lacking[0])
    assert ("never seen in training: 1 class (hidden)" in said) == (lacking[1] == {1})
    few = split_of(lon[:5], lat[:5], share=0.0001)
    assert few.notes[0].startswith("None of")
    assert not any("not estimable" in note for note in few.notes)


# --- limits


def test_no_share_is_all_training() -> None:
    """A share of 0 gives training with probability 1 and no sentence."""
    lon, lat = scattered(300, 170.0, -10.0, 20.0, 20.0)
    split = split_of(lon, lat, np.arange(300), share=0.0)
    assert not split.split.any()
    assert split.split.dtype == np.int8
    assert np.all(split.p_eligible == 1.0)
    assert np.all(split.p_heldout == 0.0)
    assert split.notes == ()
    assert split.blocks["cells"].to_numpy().sum() == 300


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": 0.6}, "held-out share of 0.6"),
        ({"share": float("nan")}, "held-out share of nan"),
        ({"share": -0.1}, "held-out share"),
        ({"buffer_km": -1.0}, "buffer_km -1"),
        ({"chip_km": 0.0}, "chip_km 0"),
        ({"block_km": 3000.0}, "block_km is 3000"),
        ({"kind": np.array([0, -1, 0])}, "class -1"),
        ({"kind": np.array([0])}, "one length"),
        ({"lat": np.array([0.0, 91.0, 0.0])}, "lat of a cell"),
        ({"lon": np.array([0.0, np.nan, 0.0])}, "lon of a cell"),
    ],
)
def test_impossible_splits_are_refused(changes: dict[str, object], words: str) -> None:
    """The value and its rule stand in the error."""
    place = {"lon": np.zeros(3), "lat": np.zeros(3), "kind": np.zeros(3, dtype=np.int64)} | changes
    with pytest.raises(ValueError, match=words):
        split_of(**place)  # type: ignore[arg-type]


def test_a_split_without_training_is_refused_with_a_remedy() -> None:
    """A region of one block is held out as a whole or not at all."""
    lon, lat = scattered(50, 10.02, 50.1, 0.1, 0.1)
    block = BlockGrid(block_km=100.0).of(lon, lat)
    assert np.unique(block).size == 1
    lost = next(s for s in range(99) if hashed_uniform(s, "split", block[:1].astype(np.uint64))[0] < 0.5)
    with pytest.raises(ValueError, match=r"no training cell is left: 1 of 1 blocks .* another seed"):
        split_of(lon, lat, share=0.5, seed=lost)


def test_enough_blocks_for_two_held_out_ones() -> None:
    """The default needs 2 / share blocks with cells."""
    lon, lat = np.linspace(0.0, 38.0, 20), np.zeros(20)
    assert enough_blocks(lon, lat, 100.0, 0.1)
    assert not enough_blocks(lon[:19], lat[:19], 100.0, 0.1)
    with pytest.raises(ValueError, match="share of 0"):
        enough_blocks(lon, lat, 100.0, 0.0)


# --- real ground


def test_a_real_region_of_tiles(shared_data: Path) -> None:
    """European tiles with their dominant WorldCover groups: sides, shares and probabilities agree with each other."""
    grid = pq.read_table(shared_data / "s2-grid" / "sentinel-2-grid_LAND.parquet", columns=["tile", "center"])
    position = np.frombuffer(b"".join(grid["center"].to_pylist()), dtype=np.dtype([("head", "S5"), ("xy", "<f8", 2)]))
    lon, lat = position["xy"].T
    europe = (lon > -12.0) & (lon < 40.0) & (lat > 35.0) & (lat < 71.0)
    kind = land_cover_kinds(shared_data, np.array(grid["tile"].to_pylist())[europe])
    names = [*sorted(set(WORLDCOVER_GROUPS.values())), "mixed", "unknown"]
    split = split_of(lon[europe], lat[europe], kind, share=0.1, chip_km=109.8, block_km=500.0, names=names)
    heldout, training = split.split == 1, split.split == 0
    assert abs(heldout.mean() - split.p_heldout.mean()) < 0.1
    assert abs(training.mean() - split.p_eligible.mean()) < 0.15
    sides = [vectors(lon[europe][side], lat[europe][side]) for side in (heldout, training)]
    away = np.asarray(cKDTree(sides[0]).query(sides[1])[0])
    # Centres of two tiles on opposite sides: a block's edge and its reach lie between them.
    assert away.min() * EARTH_KM > reach_km(5.0, 109.8) * 0.999


def land_cover_kinds(folder: Path, tiles: NDArray[np.str_]) -> NDArray[np.int64]:
    """Land-cover group of each tile; the table knows some of them, the others are `unknown`."""
    table = pq.read_table(folder / "mgrs-land-cover" / "mgrs_worldcover_fractions.parquet")
    codes = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
    columns = table.column_names[2:13]
    shares = pa.table({f"lc_{code}": table[name] for code, name in zip(codes, columns, strict=True)})
    names, index = dominant_groups(shares, WORLDCOVER_GROUPS)
    known = dict(zip(table["name"].to_pylist(), index.tolist(), strict=True))
    return np.array([known.get(tile, len(names) - 1) for tile in tiles], dtype=np.int64)
