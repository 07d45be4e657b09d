"""Which part of a grid a run reads, cut so that every chunk of the file is read once and memory stays bounded.

Rows and columns are positions on the axes of a grid; a span is (first, stop). No pixel is touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geofm_pipeline.covariates.result import tile_points
from geofm_pipeline.covariates.weather_grid import LatLonAxes, local_cols, span

Span = tuple[int, int]
"""(first, stop)."""


@dataclass(frozen=True, kw_only=True, order=True)
class Part:
    """A rectangle of a grid."""

    rows: Span
    cols: Span

    @property
    def points(self) -> int:
        """Grid points in it."""
        return (self.rows[1] - self.rows[0]) * (self.cols[1] - self.cols[0])


def tile_parts(axes: LatLonAxes, tiles: Iterable[str]) -> list[Part]:
    """The rectangles that values in each tile need; two of a tile at the seam of a grid that runs round the Earth."""
    parts = []
    for tile in tiles:
        lon, lat = tile_points(tile)
        row, col = axes.rows(lat), axes.cols(lon)
        inside = axes.inside(row, col)
        if not inside.any():
            continue
        rows = span(np.clip(row[inside], 0, axes.lat.size - 1), axes.lat.size)
        columns = np.unique(local_cols(col[inside], axes)[0])
        ends = np.flatnonzero(np.diff(columns) > 1)
        for first, last in zip(np.r_[0, ends + 1], np.r_[ends, columns.size - 1], strict=True):
            parts.append(Part(rows=rows, cols=(int(columns[first]), int(columns[last]) + 1)))
    return parts


def grid_parts(needed: Sequence[Part], *, chunks: tuple[int, int] | None, most: int) -> list[Part]:
    """Disjoint rectangles that hold all needed ones.

    Parameters
    ----------
    chunks : rows and columns of the file's chunks: no chunk is shared by two rectangles, and none is touched that no
        needed rectangle touches. None for a file without: rectangles then are runs of rows, all of the same columns
    most : points of a rectangle at most, but for one that is a single chunk or row

    An example: rows (0, 1) and (3, 6) in chunks of four rows give rows (0, 6), since both need the first chunk.
    """
    if not needed:
        return []
    west, east = min(part.cols[0] for part in needed), max(part.cols[1] for part in needed)
    high, wide = chunks or (1, east)
    if chunks is None:
        needed = [Part(rows=part.rows, cols=(west, east)) for part in needed]
    pieces: dict[tuple[int, int], Part] = {}
    for part in needed:
        for band in range(part.rows[0] // high, (part.rows[1] - 1) // high + 1):
            for column in range(part.cols[0] // wide, (part.cols[1] - 1) // wide + 1):
                rows = max(part.rows[0], band * high), min(part.rows[1], (band + 1) * high)
                cols = max(part.cols[0], column * wide), min(part.cols[1], (column + 1) * wide)
                piece = Part(rows=rows, cols=cols)
                known = pieces.get((band, column))
                pieces[band, column] = piece if known is None else _both(known, piece)
    across = _joined([pieces[at] for at in sorted(pieces)], _side_by_side, most)
    return sorted(_joined(sorted(across, key=lambda part: (part.cols, part.rows)), _one_above_the_other, most))


def _joined(parts: Sequence[Part], meet: Callable[[Part, Part], bool], most: int) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        if found and meet(found[-1], part) and (whole := _both(found[-1], part)).points <= most:
            found[-1] = whole
        else:
            found.append(part)
    return found


def _side_by_side(one: Part, other: Part) -> bool:
    return one.rows == other.rows and one.cols[1] == other.cols[0]


def _one_above_the_other(one: Part, other: Part) -> bool:
    return one.cols == other.cols and one.rows[1] == other.rows[0]


def _both(one: Part, other: Part) -> Part:
    """The smallest rectangle that holds two."""
    return Part(
        rows=(min(one.rows[0], other.rows[0]), max(one.rows[1], other.rows[1])),
        cols=(min(one.cols[0], other.cols[0]), max(one.cols[1], other.cols[1])),
    )
