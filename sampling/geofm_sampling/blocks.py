"""The split: ground blocks that are kept out of training for evaluation, with a buffer around them.

A block of the Earth's grid is held out if a hash of (seed, block) lies below its chance p_b. The base chance is the
share asked for; blocks with rare classes get a higher one, which depends on the frame and never on the draw. A cell
is *held-out* if its centre lies in a held-out block, for *training* if no held-out block lies within reach of it, and
*neither* in between. All blocks of the Earth count, with or without cells: so the split of all ground is settled by
the first frame, and an extension changes no old cell. Costs about 1 µs and 70 bytes per cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.block_grid import LEAST_RADIUS_KM, BlockGrid, Floats
from geofm_sampling.distinct import distinct
from geofm_sampling.hashing import hashed_uniform
from geofm_sampling.split_notes import HELD_OUT, NEITHER, TRAINING, class_notes, raised_notes, share_notes

EXPECTED_BLOCKS = 2.0
"""Held-out blocks that each class should have in expectation; rarer classes raise the chance of their blocks."""
HIGHEST = 0.5
"""Chance that no block exceeds."""
MOST_RAISED = 2.0
"""Raised chances hold out at most this many times the share of the cells that was asked for, in expectation."""
UTM_STRETCH = 1.0 / 0.9996
"""Ground metres per map metre at most: on the central meridian of a UTM zone."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where each cell belongs and how likely that was; arrays have the cells' shape (n,)."""

    block: NDArray[np.int32]
    """Block of the cell's centre, number in the Earth's grid of `block_km`."""
    split: NDArray[np.int8]
    """0 training, 1 held-out, -1 neither."""
    p_eligible: Floats
    """Probability, over seeds, that the cell is for training: ∏ (1 − p_b) over the blocks within reach."""
    p_heldout: Floats
    """Probability that the cell is held out: p_b of its block."""
    blocks: pa.Table
    """One row per block with cells, and per frozen one, ascending: block int32, lon, lat of its middle (degrees), p
    float64, heldout bool, cells int64. Pass it as `frozen` to an extension."""
    notes: tuple[str, ...]
    """What was held out, raised or left without cells, one sentence each; none where nothing was asked for."""


def reach_km(buffer_km: float, chip_km: float) -> float:
    """Distance from a training cell's centre to a held-out block that keeps all footprints `buffer_km` apart.

    A footprint sticks out of its centre's block by up to half a diagonal, on either side.
    """
    return buffer_km + math.sqrt(2.0) * chip_km * UTM_STRETCH


def enough_blocks(lon: Floats, lat: Floats, block_km: float, share: float) -> bool:
    """Whether the cells lie in so many blocks that two are held out in expectation: at least 2 / share."""
    if not 0.0 < share <= HIGHEST:
        raise ValueError(f"a held-out share of {share} must lie above 0 and not exceed {HIGHEST}")
    return bool(np.unique(BlockGrid(block_km=block_km).of(lon, lat)).size >= EXPECTED_BLOCKS / share)


def draw_split(
    lon: Floats,
    lat: Floats,
    kind: NDArray[np.integer],
    *,
    share: float,
    block_km: float,
    buffer_km: float,
    chip_km: float,
    seed: int,
    frozen: pa.Table | None = None,
    names: Sequence[str] = (),
) -> Split:
    """Split cells by the blocks that hold their centres.

    Parameters
    ----------
    lon, lat : centres of the cells, degrees, shape (n,)
    kind : class of each cell, whole numbers from 0, shape (n,); one that few blocks hold raises their chance
    share : chance of a block to be held out, 0 to 0.5; 0 makes everything training with probability 1
    block_km, buffer_km, chip_km : edge of a block, least distance between training and held-out footprints, edge of
        a footprint, kilometres
    frozen : `blocks` of the split that is extended: its chances hold, all other blocks have `share`
    names : name of each class, for the notes

    Raises
    ------
    ValueError
        When a parameter or position cannot be right, or no training cell is left.
    """
    _check(lon, lat, kind, share, buffer_km, chip_km)
    grid = BlockGrid(block_km=block_km)
    block = grid.of(lon, lat)
    present, place = distinct(block, int(grid.first[-1]))
    cells = np.bincount(place)
    raised, rare = _raised(place, kind, cells, share if frozen is None else 0.0)
    special = _Chances(block=present, p=raised) if frozen is None else _frozen_chances(frozen, grid, seed)
    drawing = _Drawing(grid=grid, share=share, seed=seed, special=special)
    log_free, reached = drawing.around(lon, lat, reach_km(buffer_km, chip_km))
    own = drawing.heldout(present)
    split = np.where(own[place], HELD_OUT, np.where(reached, NEITHER, TRAINING))
    _check_training(split, own, block_km)
    chance = special.of(present, share)
    said = (
        share_notes(split, own, block_km),
        raised_notes(rare, chance, share, names),
        class_notes(split, kind, names),
    )
    return Split(
        block=block,
        split=split,
        # Twelve digits: 0.9 is 0.9 whatever the other blocks of its band.
        p_eligible=np.asarray(np.round(np.exp(log_free), 12), dtype=np.float64),
        p_heldout=chance[place],
        blocks=_table(drawing, present, cells),
        notes=tuple(note for notes in said for note in notes) if share else (),
    )


@dataclass(frozen=True, kw_only=True)
class _Chances:
    """Chances of some blocks, ascending by block; all others have the base chance."""

    block: NDArray[np.integer]
    p: Floats

    def of(self, block: NDArray[np.integer], base: float) -> Floats:
        """Chance of each block, shape kept."""
        if not self.block.size:
            return np.full(block.shape, base)
        at = np.minimum(np.searchsorted(self.block, block), self.block.size - 1)
        return np.where(self.block[at] == block, self.p[at], base)


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """The draw over the whole Earth, of which any part can be asked."""

    grid: BlockGrid
    share: float
    seed: int
    special: _Chances
    """Blocks whose chance is not, or need not be, the share."""

    def heldout(self, block: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether each block is held out, shape kept."""
        uniform = hashed_uniform(self.seed, "split", block.astype(np.uint64))
        return np.asarray(uniform < self.special.of(block, self.share))

    def around(self, lon: Floats, lat: Floats, reach: float) -> tuple[Floats, NDArray[np.bool_]]:
        """Σ log(1 − p_b) over the blocks within reach of each point and whether one is held out, shapes (n,).

        Band by band over points sorted by latitude: a band's blocks within reach of a point are one span of columns,
        so two running sums per band answer for all points near it.
        """
        order = np.argsort(lat, kind="stable")
        lon, lat = lon[order], lat[order]
        log_free, held = np.zeros(lat.size), np.zeros(lat.size)
        angle, height = np.degrees(reach / LEAST_RADIUS_KM), 180.0 / self.grid.bands
        first, last = self.grid.band_of(np.array([lat[0] - angle, lat[-1] + angle]))
        for band in range(int(first), int(last) + 1):
            south = -90.0 + band * height
            rows = slice(*np.searchsorted(lat, [south - angle, south + height + angle]).tolist())
            if rows.start == rows.stop:
                continue
            block = np.arange(self.grid.first[band], self.grid.first[band + 1])
            west, east = self.grid.within(lon[rows], lat[rows], band=band, reach_km=reach)
            log_free[rows] += _span_sum(np.log1p(-self.special.of(block, self.share)), west, east)
            held[rows] += _span_sum(self.heldout(block).astype(np.float64), west, east)
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        return log_free[back], held[back] > 0


def _span_sum(values: Floats, west: NDArray[np.int64], east: NDArray[np.int64]) -> Floats:
    """Sum of a ring of values over the columns `west` … `east` (inclusive, any whole numbers), each value once."""
    running = np.concatenate([[0.0], np.cumsum(values)])
    turn, rest = np.divmod(np.stack([west, east + 1]), values.size)
    total = running[rest] + turn * running[-1]
    return np.asarray(np.where(east - west + 1 >= values.size, running[-1], total[1] - total[0]))


def _check(lon: Floats, lat: Floats, kind: NDArray[np.integer], share: float, buffer_km: float, chip_km: float) -> None:
    if not 0.0 <= share <= HIGHEST:
        raise ValueError(f"a held-out share of {share} must lie between 0 and {HIGHEST}")
    if not (0.0 <= buffer_km <= 500.0 and 0.0 < chip_km <= 500.0):
        raise ValueError(f"buffer_km {buffer_km} and chip_km {chip_km} must lie within 0 … 500 (chip_km above 0)")
    if not lon.shape == lat.shape == kind.shape or lon.ndim != 1 or not lon.size:
        raise ValueError(
            f"longitudes {lon.shape}, latitudes {lat.shape} and classes {kind.shape} must be lists of one length, "
            "with at least one cell"
        )
    for name, values, limit in (("lon", lon, 180.0), ("lat", lat, 90.0)):
        bad = ~(np.abs(values) <= limit)
        if bad.any():
            raise ValueError(f"{name} of a cell is {values[bad][:1]}, must lie within -{limit:g} … {limit:g}")
    if kind.min() < 0:
        raise ValueError(f"class {kind.min()} of a cell must be a whole number from 0")


def _check_training(split: NDArray[np.int8], own: NDArray[np.bool_], block_km: float) -> None:
    if not (split == TRAINING).any():
        raise ValueError(
            f"no training cell is left: {own.sum()} of {own.size} blocks of {block_km:g} km with cells are held out, "
            "and buffers take the rest; choose another seed, a smaller held-out share or smaller blocks"
        )


def _frozen_chances(frozen: pa.Table, grid: BlockGrid, seed: int) -> _Chances:
    """The chances of an earlier split; ValueError unless it was one of this grid and seed."""
    block, p = frozen["block"].to_numpy().astype(np.int32), frozen["p"].to_numpy().astype(np.float64)
    order = np.argsort(block, kind="stable")
    wrong = (block < 0) | (block >= grid.first[-1]) | ~((p >= 0.0) & (p <= HIGHEST))
    if wrong.any() or np.any(np.diff(block[order]) == 0):
        raise ValueError(
            f"the frozen blocks are not of a grid of {grid.block_km:g} km with {grid.first[-1]} blocks, each once with "
            f"a chance of 0 to {HIGHEST}: they belong to another split"
        )
    uniform = hashed_uniform(seed, "split", block.astype(np.uint64))
    if np.any((uniform < p) != frozen["heldout"].to_numpy(zero_copy_only=False)):
        raise ValueError("the frozen blocks were drawn with another seed; an extension keeps the seed of its split")
    return _Chances(block=block[order], p=p[order])


def _raised(
    place: NDArray[np.int64], kind: NDArray[np.integer], cells: NDArray[np.int64], share: float
) -> tuple[Floats, NDArray[np.int64]]:
    """p_b of each block with cells, shape (B,), and the classes for which it was raised.

    A class in K blocks with share · K < EXPECTED_BLOCKS raises theirs to min(HIGHEST, EXPECTED_BLOCKS / K). Where
    that would hold out more than MOST_RAISED times the share of the cells, all raises shrink by one factor.
    """
    kinds = int(kind.max()) + 1
    block, of_kind = np.divmod(distinct(place * kinds + kind, cells.size * kinds)[0], kinds)
    blocks = np.bincount(of_kind, minlength=kinds)
    rare = (blocks > 0) & (share * blocks < EXPECTED_BLOCKS) & (share > 0.0)
    wanted = np.where(rare, np.minimum(HIGHEST, EXPECTED_BLOCKS / np.maximum(blocks, 1)), share)
    raised = np.full(cells.size, share)
    np.maximum.at(raised, block, wanted[of_kind])
    more = float(((raised - share) * cells).sum()) / float(cells.sum())
    shrunk = min(1.0, (MOST_RAISED - 1.0) * share / more) if more > 0.0 else 1.0
    return share + shrunk * (raised - share), np.flatnonzero(rare & (wanted > share))


def _table(drawing: _Drawing, present: NDArray[np.integer], cells: NDArray[np.int64]) -> pa.Table:
    """The table of blocks: those with cells and those whose chance was frozen before."""
    block = np.union1d(present, drawing.special.block).astype(np.int32)
    count = np.zeros(block.size, dtype=np.int64)
    count[np.searchsorted(block, present)] = cells
    bounds = drawing.grid.bounds(block)
    return pa.table(
        {
            "block": block,
            "lon": (bounds[:, 0] + bounds[:, 2]) / 2,
            "lat": (bounds[:, 1] + bounds[:, 3]) / 2,
            "p": drawing.special.of(block, drawing.share),
            "heldout": drawing.heldout(block),
            "cells": count,
        }
    )
