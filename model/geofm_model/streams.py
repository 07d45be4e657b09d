"""Random numbers that belong to samples, not to workers: pure functions of (seed, purpose, epoch, sample, repeat).

SplitMix64 (Steele, Lea & Flood 2014) over 64-bit words. The same inputs give the same number on every machine, at every
world size, thread count and library version, so a resumed run needs no generator's state. About 10 ns per number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_BLOCK = 1 << 16
"""Words mixed at once: they stay in the processor's cache."""
Words = NDArray[np.uint64]


def words(seed: int, purpose: str, *keys: ArrayLike) -> Words:
    """A uniform 64-bit word for each combination of keys, which broadcast against each other.

    Parameters
    ----------
    seed : of the run, any integer
    purpose : what the number is for, such as `"crop"`: other purposes give unrelated numbers
    keys : integers ≥ 0, e.g. epoch, sample, repeat; their order counts
    """
    found = np.asarray(_key(seed, purpose))
    for key in keys:
        found = mixed(found ^ mixed(np.asarray(key).astype(np.uint64)))
    return found


def uniform(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.float64]:
    """As :func:`words`, a uniform number in [0, 1) with 53 random bits."""
    return np.asarray((words(seed, purpose, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def mixed(values: Words) -> Words:
    """SplitMix64's output function of each word, shape kept: a bijection, so different words stay different."""
    flat = np.ravel(values)
    out = np.empty(flat.size, dtype=np.uint64)
    scratch = np.empty(min(_BLOCK, flat.size), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, _BLOCK):
            z, t = out[start : start + _BLOCK], scratch[: min(_BLOCK, flat.size - start)]
            np.add(flat[start : start + _BLOCK], _GOLDEN, out=z)
            for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
                np.right_shift(z, np.uint64(shift), out=t)
                np.bitwise_xor(z, t, out=z)
                np.multiply(z, factor, out=z)
            np.right_shift(z, np.uint64(31), out=t)
            np.bitwise_xor(z, t, out=z)
    return out.reshape(np.shape(values))


def _key(seed: int, purpose: str) -> np.uint64:
    key = np.array([int(seed) & (2**64 - 1)], dtype=np.uint64)
    for byte in purpose.encode():
        key = mixed(key ^ np.uint64(byte))
    return np.uint64(mixed(key)[0])
