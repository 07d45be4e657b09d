"""k-means with hashed seeds."""

from __future__ import annotations

import numpy as np

from geofm_sampling.kmeans import fit_centroids, nearest_centroid


def test_kmeans_finds_separate_clumps() -> None:
    """Three far clumps give their three means, whatever the seed; few distinct points give themselves."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.concatenate([c + rng.normal(0, 0.1, (200, 2)) for c in centres])
    for seed in range(5):
        found = fit_centroids(points, 3, seed=seed)
        assert np.allclose(found[np.lexsort(found.T[::-1])], centres[np.lexsort(centres.T[::-1])], atol=0.05)
    assert np.array_equal(fit_centroids(np.array([[1.0], [1.0], [2.0]]), 5, seed=0), [[1.0], [2.0]])
    assert nearest_centroid(points, centres)[[0, 200, 400]].tolist() == [0, 1, 2]
