"""Chips and their readers: what the pipeline asks of a reader, and what it gets.

Axes everywhere: T dates ascending, B bands in the order of BANDS, H rows from the north, W columns from the west.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.access.tally import Tally
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.scenes import SceneRef


@dataclass(frozen=True, kw_only=True)
class ChipRequest:
    """One chip to read: a window of one tile at T dates."""

    unit: int
    """Packed unit id."""
    tile: str
    row_off: int
    """First pixel row of the window in the tile, from the north."""
    col_off: int
    """First pixel column of the window in the tile, from the west."""
    size: int
    """Edge in pixels."""
    scenes: tuple[SceneRef, ...]
    """The T granules in order of date."""


@dataclass(frozen=True, kw_only=True)
class Chip:
    """The pixels of one request."""

    unit: int
    image: NDArray[np.int16]
    """[T, B, H, W], reflectance × 10⁴, −9999 where missing."""
    fmask: NDArray[np.uint8]
    """[T, H, W], the raw HLS byte, 255 where missing."""


@dataclass(frozen=True, kw_only=True)
class ChipFailure:
    """A request that can never be read; it becomes a tombstone in the store."""

    unit: int
    error: BlockReadError


@dataclass(kw_only=True)
class ReadStats:
    """What a reader cost so far; adding two gives the cost of both."""

    requests: int = 0
    """Range requests for blocks."""
    opens: int = 0
    """Range requests for headers."""
    bytes_requested: int = 0
    """All bytes asked for, headers included."""
    bytes_needed: int = 0
    """Compressed bytes of the blocks that hold at least one wanted pixel, each counted once per chip band and date."""
    tally: Tally = field(default_factory=Tally)
    """What it took: requests sent, those repeated and reads given up, by cause."""
    seconds: float = field(default=0.0, compare=False)
    """Time the consumer of the chips waited for them."""

    def __add__(self, other: ReadStats) -> ReadStats:
        return ReadStats(
            requests=self.requests + other.requests,
            opens=self.opens + other.opens,
            bytes_requested=self.bytes_requested + other.bytes_requested,
            bytes_needed=self.bytes_needed + other.bytes_needed,
            tally=self.tally + other.tally,
            seconds=self.seconds + other.seconds,
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**vars(self), "tally": self.tally.as_dict()}

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> ReadStats:
        """Inverse of :meth:`as_dict`."""
        tally = record.get("tally")
        counts = {name: int(str(record[name])) for name in ("requests", "opens", "bytes_requested", "bytes_needed")}
        known = Tally.from_dict(tally) if isinstance(tally, Mapping) else Tally()
        return cls(**counts, tally=known, seconds=float(str(record["seconds"])))


class ChipReader(Protocol):
    """Reads chips of one write group.

    Obligations: yields exactly one Chip or ChipFailure per request, in the order of the requests; a failure only for
    a permanent fault (missing asset, 404, corrupt block); a transient fault is retried and then raised; nothing is
    ever filled silently; pixels equal rasterio's window of the same file bit for bit; each file is opened once per
    call; at most a bounded number of chips is held in memory at once.
    """

    stats: ReadStats

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        """Read all requests."""
        ...
