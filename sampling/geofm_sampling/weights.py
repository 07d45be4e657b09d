"""Weights of written samples: known phases times stated response classes.

`weight_design` = 1 / (π* · r_read): the double-expansion weight, with r_read the share of a stratum's attempted samples
that could be read (Särndal, Swensson & Wretman 1992, ch. 9 and 15). It describes the *observable* population.
`weight_full` = weight_design / r_clear, with r_clear the share of a stratum's looked-at units that were observable: it
describes the whole frame if units of a stratum are missing at random. One wave: λ = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of n attempted samples, shape (n,) each; 0 for a sample that could not be read."""

    design: NDArray[np.float64]
    """For the observable population."""
    full: NDArray[np.float64]
    """For the whole frame, assuming missing at random within strata."""


def sample_weights(
    *,
    stratum: NDArray[np.int32],
    pi_star: NDArray[np.float64],
    written: NDArray[np.bool_],
    looked: NDArray[np.int64],
    observable: NDArray[np.int64],
) -> Weights:
    """Weights of attempted samples.

    Parameters
    ----------
    stratum, pi_star, written : shape (n,), per attempted sample; `written` is False for a tombstone
    looked, observable : shape (H,), per stratum number: units looked at and found observable

    Raises
    ------
    ValueError
        When a probability is not in (0, 1].
    """
    if pi_star.size and not (np.all(pi_star > 0) and np.all(pi_star <= 1)):
        raise ValueError(f"pi_star must lie in (0, 1], got {pi_star.min()} to {pi_star.max()}")
    attempted = np.bincount(stratum, minlength=looked.size)
    read = np.bincount(stratum, weights=written, minlength=looked.size)
    # A stratum whose samples all failed has no written row left to carry a weight; 1 keeps the arithmetic finite.
    r_read = np.where(read > 0, read / np.maximum(attempted, 1), 1.0)
    r_clear = np.where(observable > 0, observable / np.maximum(looked, 1), 1.0)
    design = np.where(written, 1.0 / (pi_star * r_read[stratum]), 0.0)
    return Weights(design=design, full=design / r_clear[stratum])
