"""Weights of written samples."""

from __future__ import annotations

import numpy as np
import pytest

from geofm_sampling.weights import sample_weights


def test_weights_add_up_to_the_populations_they_describe() -> None:
    """Design weights sum to the observable units expanded from the look, full weights to the frame."""
    # Stratum 0: 100 units, 50 looked at, 20 observable, 10 drawn. Stratum 1: 40, 40, 8 and 8.
    stratum = np.repeat([0, 1], [10, 8]).astype(np.int32)
    pi_star = np.repeat([50 / 100 * 10 / 20, 1.0], [10, 8])
    written = np.ones(18, dtype=bool)
    written[[0, 12]] = False
    weights = sample_weights(
        stratum=stratum, pi_star=pi_star, written=written, looked=np.array([50, 40]), observable=np.array([20, 8])
    )
    by_stratum = np.bincount(stratum, weights=weights.design)
    assert by_stratum == pytest.approx([20 / 50 * 100, 8])
    assert np.bincount(stratum, weights=weights.full) == pytest.approx([100, 40])
    assert weights.design[0] == weights.full[12] == 0


def test_an_impossible_probability_is_refused() -> None:
    """A zero probability never becomes an infinite weight."""
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        sample_weights(
            stratum=np.zeros(1, np.int32),
            pi_star=np.zeros(1),
            written=np.ones(1, bool),
            looked=np.ones(1, np.int64),
            observable=np.ones(1, np.int64),
        )
