"""Random numbers that belong to units, not to workers: a uniform number is a hash of (seed, purpose, unit id).

SplitMix64 (Steele, Lea & Flood 2014) on 64-bit words: the same inputs give the same number on every machine,
library version and partitioning. About 10 ns per number.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = 2**64 - 1


def splitmix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function of each word, shape kept."""
    with np.errstate(over="ignore"):
        z = np.asarray(words, dtype=np.uint64) + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return np.asarray(z ^ (z >> np.uint64(31)))


@lru_cache(maxsize=4096)
def stream_key(seed: int, purpose: str) -> np.uint64:
    """One 64-bit key of a run's seed (any integer) and a purpose such as `"master"`."""
    key = seed & _MASK
    for byte in purpose.encode():
        key = _splitmix64_int(key ^ byte)
    return np.uint64(_splitmix64_int(key))


def _splitmix64_int(word: int) -> int:
    """:func:`splitmix64` of one word in plain integers, twenty times faster than an array of one."""
    z = (word + int(_GOLDEN)) & _MASK
    z = ((z ^ (z >> 30)) * int(_MIX_1)) & _MASK
    z = ((z ^ (z >> 27)) * int(_MIX_2)) & _MASK
    return z ^ (z >> 31)


def hashed_words(seed: int, purpose: str, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A uniform 64-bit word for each id, shape kept."""
    return splitmix64(splitmix64(np.asarray(ids, dtype=np.uint64)) ^ stream_key(seed, purpose))


def hashed_uniform(seed: int, purpose: str, ids: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A uniform number in [0, 1) for each id (53 random bits), shape kept."""
    return (hashed_words(seed, purpose, ids) >> np.uint64(11)).astype(np.float64) * 2.0**-53
