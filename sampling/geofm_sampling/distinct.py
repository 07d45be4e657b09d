"""The distinct values of many small whole numbers, by counting instead of sorting where that is cheaper."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def distinct(code: NDArray[np.integer], limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct values, ascending, and each number's index into them, shape (n,); numbers are 0 … `limit` − 1.

    Like `np.unique(code, return_inverse=True)`, at 10 ns instead of 0.5 µs per number unless `limit` is far above
    their count.
    """
    if limit > 8 * code.size + 4096:
        values, inverse = np.unique(code.astype(np.int64), return_inverse=True)
        return values, inverse
    values = np.flatnonzero(np.bincount(code, minlength=limit))
    place = np.zeros(limit, dtype=np.int64)
    place[values] = np.arange(values.size)
    return values, place[code]
