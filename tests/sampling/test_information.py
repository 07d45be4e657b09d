"""Promises of the information: entropy, descriptors, look-alikes, novelty, sizes and spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import entropy as scipy_entropy

from geofm_sampling import similarity
from geofm_sampling.information import (
    BINS,
    CAP,
    FILL,
    LEAST_PIXELS,
    PRIOR_UNITS,
    descriptor,
    descriptors,
    sizes,
    spectral_entropies,
    spectral_entropy,
    spread,
)
from geofm_sampling.similarity import FLOOR, RADIUS, near_duplicates, novelty


def pictures(seed: int, n: int, B: int = 6, edge: int = 16) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """n images of patchy reflectance, some negative, some over 1, with holes of fill."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(1.0, 1500, (n, B, 1, 1))
    images = (level + rng.normal(0, 1, (n, B, edge, edge)) * rng.gamma(1.0, 600, (n, B, 1, 1)) - 100).astype(np.int16)
    valid = rng.random((n, edge, edge)) < rng.random((n, 1, 1))
    return np.where(valid[:, None], images, FILL).astype(np.int16), valid


def plain_entropy(image: NDArray[np.int16], valid: NDArray[np.bool_]) -> float:
    """Entropy band by band with numpy's histogram and scipy's entropy."""
    if valid.sum() < LEAST_PIXELS:
        return float("nan")
    bits = []
    for band in image:
        root = np.sqrt(np.clip(band[valid], 0, 10_000) / 10_000)
        counts, _ = np.histogram(root, bins=np.linspace(0, 1, BINS + 1))
        correction = ((counts > 0).sum() - 1) / (2 * valid.sum()) / np.log(2)
        bits.append(min(scipy_entropy(counts, base=2) + correction, np.log2(BINS)))
    return float(np.mean(bits))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), B=st.integers(1, 7), edge=st.sampled_from([4, 16, 32]))
def test_entropy_and_descriptor_are_the_textbooks(seed: int, B: int, edge: int) -> None:
    """Scipy's entropy of numpy's histograms plus Miller's correction; numpy's mean and standard deviation."""
    images, valid = pictures(seed, 5, B, edge)
    found, numbers = spectral_entropies(images, valid), descriptors(images, valid)
    assert numbers.shape == (5, 2 * B)
    for i in range(5):
        np.testing.assert_allclose(found[i], plain_entropy(images[i], valid[i]), rtol=1e-5)
        assert np.isnan(found[i]) == np.isnan(numbers[i]).any() == (valid[i].sum() < LEAST_PIXELS)
        if not np.isnan(found[i]):
            pixels = images[i][:, valid[i]] / 1e4
            np.testing.assert_allclose(numbers[i], np.r_[pixels.mean(1), pixels.std(1)], rtol=1e-4, atol=1e-7)


def test_a_batch_says_of_each_image_what_the_image_says_alone() -> None:
    """Bit for bit, whatever else is in the batch and in which order."""
    images, valid = pictures(3, 12)
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(
        spectral_entropies(images[order], valid[order]), spectral_entropies(images, valid)[order]
    )
    for i in range(12):
        np.testing.assert_array_equal(
            np.float32(spectral_entropy(images[i], valid[i])), spectral_entropies(images, valid)[i]
        )
        np.testing.assert_array_equal(descriptor(images[i], valid[i]), descriptors(images, valid)[i])


def test_entropy_of_known_pictures() -> None:
    """Still water 0 bits; two halves 1 bit and a correction of one bin; all bins evenly, 6 bits, never more."""
    valid = np.ones((1, 16, 16), dtype=bool)
    flat = np.full((1, 2, 16, 16), 300, dtype=np.int16)
    assert spectral_entropies(flat, valid)[0] == 0
    halves = flat.copy()
    halves[..., :8] = 4000
    assert spectral_entropies(halves, valid)[0] == pytest.approx(1 + 1 / 512 / np.log(2))
    every = np.repeat(((np.arange(64) + 0.5) / 64) ** 2 * 1e4, 4).astype(np.int16).reshape(1, 1, 16, 16)
    assert spectral_entropies(every, valid)[0] == 6


def test_the_correction_makes_few_pixels_comparable_with_many() -> None:
    """The mean over draws of 256 pixels is nearer to the entropy of all 65,536 than without it (fixed seed)."""
    rng = np.random.default_rng(5)
    whole = np.clip(rng.normal(2500, 700, 65_536), 0, 10_000).astype(np.int16)
    truth = spectral_entropy(whole.reshape(1, 256, 256), np.ones((256, 256), dtype=bool))
    draws = rng.choice(whole, (400, 1, 16, 16))
    found = spectral_entropies(draws, np.ones((400, 16, 16), dtype=bool))
    plain = [scipy_entropy(np.histogram(np.sqrt(d / 1e4), np.linspace(0, 1, 65))[0], base=2) for d in draws]
    assert abs(found.mean() - truth) < 0.4 * abs(np.mean(plain) - truth)


def test_fill_is_never_measured() -> None:
    """A valid pixel that holds fill, or shapes that do not fit, are bugs of the caller and refused."""
    images, valid = pictures(1, 2)
    with pytest.raises(ValueError, match="holds the fill value -9999"):
        spectral_entropies(images, np.ones_like(valid))
    with pytest.raises(ValueError, match=r"shapes must be \(n, B, H, W\)"):
        descriptors(images, valid[:1])


def brute_mass(d: NDArray[np.float64], group: NDArray[np.int64], pi1: NDArray[np.float64], radius: float) -> NDArray:
    near = np.linalg.norm(d[:, None] - d[None], axis=2) <= radius
    return ((near & (group[:, None] == group[None])) / pi1[None]).sum(axis=1)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 120), groups=st.integers(1, 4))
def test_look_alikes_by_brute_force(seed: int, n: int, groups: int) -> None:
    """Σ 1/π₁ over the units of the group within the radius, itself and exact copies included; NaN without pixels."""
    rng = np.random.default_rng(seed)
    d = rng.normal(0, 0.02, (n, 4)).astype(np.float32)
    d[rng.random(n) < 0.2] = d[0]
    group, pi1 = rng.integers(0, groups, n), rng.choice([0.5, 0.25, 0.1], n)
    unknown = rng.random(n) < 0.1
    found = near_duplicates(np.where(unknown[:, None], np.nan, d), group, pi1)
    good = ~unknown
    assert np.isnan(found[unknown]).all()
    np.testing.assert_allclose(found[good], brute_mass(d[good].astype(float), group[good], pi1[good], RADIUS))
    assert np.all(found[good] >= 1 / pi1[good])


@pytest.mark.parametrize("n", [300, 3000])
def test_the_order_of_rows_does_not_matter(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Bit for bit, also where look-alikes are estimated from a part of the group and where rows repeat."""
    monkeypatch.setattr(similarity, "REFERENCE", 500)
    monkeypatch.setattr(similarity, "_BLOCK", 64)
    rng = np.random.default_rng(n)
    d = rng.normal(0, 0.01, (n, 12)).astype(np.float32)
    d[: n // 10] = d[0]
    group, pi1 = rng.integers(0, 2, n), rng.uniform(0.01, 1, n)
    found, order = near_duplicates(d, group, pi1), rng.permutation(n)
    np.testing.assert_array_equal(near_duplicates(d[order], group[order], pi1[order]), found[order])


def test_large_groups_are_estimated_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a tenth of a group of 5,000: within 10 % in all (500 units give 4 %, one sigma), in order one by one."""
    rng = np.random.default_rng(8)
    d = rng.normal(0, 1, (5000, 12)).astype(np.float32) * np.float32(0.008) * rng.choice([1, 3], (5000, 1))
    group, pi1 = np.zeros(5000, dtype=int), np.full(5000, 0.2)
    exact = near_duplicates(d, group, pi1)
    monkeypatch.setattr(similarity, "REFERENCE", 500)
    found = near_duplicates(d, group, pi1)
    assert found.sum() == pytest.approx(exact.sum(), rel=0.1)
    assert np.corrcoef(np.log(found), np.log(exact))[0, 1] > 0.95
    assert np.all(found >= 5)


def test_novelty_rises_with_the_distance_to_the_nearest() -> None:
    """FLOOR on top of existing data, 1 far away and without existing data, monotone between, NaN without pixels."""
    away = np.linspace(0, 8 * RADIUS, 200)
    units = np.column_stack([away, np.zeros(200)])
    known = np.array([[0.0, 0.0], [np.nan, np.nan], [-1.0, 0.0]])
    found = novelty(units, known)
    assert found[0] == pytest.approx(FLOOR)
    assert np.all(np.diff(found) >= 0)
    assert found[-1] == 1
    one, two = (novelty([[r * RADIUS, 0.0]], known)[0] for r in (1, 2))
    assert (round(one, 2), round(two, 2)) == (0.45, 0.88)
    np.testing.assert_array_equal(novelty(units, np.empty((0, 2))), np.ones(200))
    assert np.isnan(novelty([[np.nan, 0.0]], known)[0])
    with pytest.raises(ValueError, match="must come from the same bands"):
        novelty(units, np.zeros((3, 12)))


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), gamma=st.floats(0, 4))
def test_sizes_are_positive_capped_and_one_on_average(seed: int, n: int, gamma: float) -> None:
    """Plain numpy per group: products clipped at CAP medians, unknown ones at the median, scaled to a mean of 1."""
    rng = np.random.default_rng(seed)
    entropy, mass, fresh = rng.gamma(2, 1, n), rng.pareto(1, n) + 1, rng.uniform(0.1, 1, n)
    entropy[rng.random(n) < 0.2], group = np.nan, rng.choice([-1, 7, 1 << 40], n)
    entropy[rng.random(n) < 0.1] = 0
    found = sizes(entropy, mass, fresh, gamma, group)
    assert np.all(found > 0)
    for g in np.unique(group):
        mine = group == g
        product = entropy[mine] * mass[mine] ** -0.5 * fresh[mine] ** gamma
        middle = np.median(product[product > 0]) if (product > 0).any() else 1.0
        expected = np.clip(np.where(np.isnan(product), middle, product), middle / CAP, CAP * middle)
        np.testing.assert_allclose(found[mine], expected / expected.mean())
        assert found[mine].max() / found[mine].min() <= CAP**2 * (1 + 1e-9)


def test_redundancy_lowers_a_size_and_the_whole_group_of_look_alikes_keeps_more() -> None:
    """A unit among 16 look-alikes has a quarter of the chance, the 16 together four times that of a single one."""
    found = sizes([3.0, 3.0, 3.0], [1.0, 16.0, 16.0], [1.0, 1.0, 1.0], 1.0, [0, 0, 0])
    assert found[0] / found[1] == pytest.approx(4.0)
    assert sizes([3.0] * 2, [1.0] * 2, [1.0, 0.5], 2.0, [0, 0])[1] == pytest.approx(0.4)
    for bad, message in (
        (([-1.0], [1.0], [1.0], 1.0), "entropy"),
        (([1.0], [0.0], [1.0], 1.0), "duplicates"),
        (([1.0], [1.0], [2.0], 1.0), "novelty"),
        (([1.0], [1.0], [1.0], -1.0), "gamma"),
    ):
        with pytest.raises(ValueError, match=message):
            sizes(*bad, [0])


def test_spread_is_shrunk_and_never_zero() -> None:
    """(PRIOR_UNITS · pooled + (n − 1) · own) / (PRIOR_UNITS + n − 1); the pooled one where a group knows nothing."""
    rng = np.random.default_rng(2)
    score = np.concatenate([rng.normal(3, 0.2, 400), rng.normal(1, 1.0, 300), [2.0], [np.nan], np.full(50, 5.0)])
    group = np.repeat([0, 1, 2, 3, 4], [400, 300, 1, 1, 50])
    found = spread(score, group, 6)
    own = [score[group == g] for g in (0, 1, 4)]
    free = [len(values) - 1 for values in own]
    pooled = sum(f * v.var(ddof=1) for f, v in zip(free, own, strict=True)) / sum(free)
    for g, f, values in zip((0, 1, 4), free, own, strict=True):
        expected = (PRIOR_UNITS * pooled + f * values.var(ddof=1)) / (PRIOR_UNITS + f)
        assert found[g] == pytest.approx(np.sqrt(expected))
    np.testing.assert_allclose(found[[2, 3, 5]], np.sqrt(pooled))
    assert np.all(found > 0)
    np.testing.assert_array_equal(spread([1.0, 1.0], [0, 1], 3), np.ones(3))
    both = np.column_stack([score, 2 * score])
    np.testing.assert_allclose(spread(both, group, 6), np.sqrt(5) * found)
    np.testing.assert_array_equal(spread([], [], 2), np.ones(2))


def test_probabilities_and_radius_are_checked() -> None:
    """Values that cannot be right are named."""
    with pytest.raises(ValueError, match=r"pi1 must lie in \(0, 1\], got 0"):
        near_duplicates(np.zeros((1, 2)), [0], [0.0])
    with pytest.raises(ValueError, match="radius is 0"):
        near_duplicates(np.zeros((1, 2)), [0], [1.0], radius=0)
    assert near_duplicates(np.empty((0, 12)), [], []).shape == (0,)
