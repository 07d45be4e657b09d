"""Unit ids of imported chips: a hash of (file, chip size, row, column), checked for collisions.

A store's order (geofm_pipeline.store.order) reads a *cluster* together: units that agree in all bits but 10 to 24. So
the hash names the image, in blocks of 128 × 128 chips, and those bits say which chip of the block it is: the chips of
an image are dealt and read together, and its files are opened once per write group. 49 bits are left for the hash:
among a million images of one block each, the chance that any two share them is 1 in 1,100; then the import is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.errors import InputError

_BITS = 7  # of a chip's row, and of its column, within a block
_INSIDE = (1 << _BITS) - 1
_LOW = 10
_KEPT = np.uint64(~(((1 << 15) - 1) << _LOW) & (2**64 - 1))
"""Bits that the hash fills: all but 10 to 24."""
Hashed = Callable[[str], int]
"""A 64-bit number of a text."""


def hash_text(text: str) -> int:
    """The first 8 bytes of a text's SHA-256, little-endian."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def unit_ids(
    files: Sequence[str], rows: NDArray[np.int64], cols: NDArray[np.int64], size: int, *, hashed: Hashed = hash_text
) -> NDArray[np.uint64]:
    """Unit id of each chip, shape (n,).

    Parameters
    ----------
    files : name of the chip's image, n of them
    rows, cols : first pixel row and column of the chip, multiples of `size`, shape (n,)
    size : edge of a chip in pixels
    hashed : from text to 64 bits, an argument so that collisions can be tested

    Raises
    ------
    InputError
        When two chips get the same id.
    """
    down, across = rows // size, cols // size
    texts = [f"{size} {i >> _BITS} {j >> _BITS} {name}" for i, j, name in zip(down, across, files, strict=True)]
    known = {text: hashed(text) for text in dict.fromkeys(texts)}
    named = np.array([known[text] for text in texts], dtype=np.uint64) & _KEPT
    inside = ((down & _INSIDE) << _BITS | across & _INSIDE).astype(np.uint64)
    units = named | inside << np.uint64(_LOW)
    _refuse_collisions(units, files, rows, cols)
    return units


def _refuse_collisions(
    units: NDArray[np.uint64], files: Sequence[str], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> None:
    order = np.argsort(units, kind="stable")
    same = np.flatnonzero(units[order][1:] == units[order][:-1])
    if same.size:
        a, b = (f"{files[i]} (row {rows[i]}, column {cols[i]})" for i in order[same[0] : same[0] + 2])
        raise InputError(
            f"the chips {a} and {b} get the same unit id {units[order[same[0]]]}: ids are hashes of names, so rename "
            "one of the files or its folder"
        )
