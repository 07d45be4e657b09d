"""The valid-pixel rule and the sums against plain Python integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from geofm_pipeline.hls.fmask import MaskRule
from geofm_pipeline.store.sums import BandSums, chip_sums, valid_pixels

_sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))


@st.composite
def _chips(draw: st.DrawFn) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    t, b, h, w = draw(_sizes)
    lowest = draw(st.sampled_from([-32768, -9998, 1]))  # planes without fill and above 0 take shorter ways
    edges = [value for value in (-32768, -9999, -1, 0, 1, 4096, 32767) if value >= lowest]
    values = st.sampled_from(edges) | st.integers(lowest, 32767)
    image = draw(hnp.arrays(np.int16, (t, b, h, w), elements=values))
    clear = draw(st.booleans())
    codes = st.sampled_from([64, 128] if clear else [64, 128, 66, 68, 72, 16, 32, 1, 255])
    fmask = draw(hnp.arrays(np.uint8, (t, h, w), elements=codes))
    return image, fmask


@given(_chips(), st.sets(st.sampled_from(["cloud", "adjacent", "shadow", "snow", "water"])))
def test_a_pixel_is_valid_by_the_rule(chip: tuple[NDArray[np.int16], NDArray[np.uint8]], bits: set[str]) -> None:
    """Valid: no band is −9999, Fmask is not 255, and none of the rule's bits is set."""
    image, fmask = chip
    rule = MaskRule(bits=tuple(sorted(bits)))
    valid = valid_pixels(image, fmask, rule)
    for t, y, x in np.ndindex(fmask.shape):
        code = int(fmask[t, y, x])
        expected = all(v != -9999 for v in image[t, :, y, x].tolist()) and code != 255 and not code & rule.byte
        assert valid[t, y, x] == expected


@given(_chips())
def test_sums_are_exact(chip: tuple[NDArray[np.int16], NDArray[np.uint8]]) -> None:
    """Count, Σ, Σ² and the number of values ≤ 0 equal those of Python integers, at the extremes of int16 too."""
    image, fmask = chip
    valid = valid_pixels(image, fmask, MaskRule())
    pixels, sums = chip_sums(image, fmask, MaskRule())
    assert pixels == tuple(valid.sum(axis=(1, 2)).tolist())
    for b in range(image.shape[1]):
        values = [int(v) for v in image[:, b][valid]]
        assert sums.count[b] == len(values)
        assert sums.total[b] == sum(values)
        assert sums.squares[b] == sum(v * v for v in values)
        assert sums.nonpositive[b] == sum(v <= 0 for v in values)


def test_sums_of_a_whole_block_do_not_overflow() -> None:
    """A 256-px chip of the most negative value keeps exact sums, beyond 2⁵³ once chips are added."""
    image = np.full((4, 1, 256, 256), -32768, dtype=np.int16)
    _, one = chip_sums(image, np.full((4, 256, 256), 64, dtype=np.uint8), MaskRule())
    assert one.total == (-(2**15) * 2**18,)
    assert one.squares == (2**30 * 2**18,)
    many = BandSums.zero(1)
    for _ in range(100):
        many = many + one
    assert many.squares == (100 * 2**48,)
    assert many.std() == (0.0,)
    assert many.mean() == (-32768.0,)
