"""Views are pure functions of seed, epoch, sample and repeat, and show exactly the pixels they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geofm_model.views import Flip, Views, _gathered, central_views, dates_of, normalised, plan_views, view_of

SHAPE = (4, 20, 23)


def plan(count: int = 9, *, first: int = 0, epoch: int = 0, **options: object) -> Views:
    """Views of samples first … first + count − 1."""
    sample = torch.arange(first, first + count)
    fields: dict[str, object] = {"seed": 3, "size": 16, "flip": "both", **options}
    return plan_views(sample, torch.full_like(sample, epoch), shape=SHAPE, **fields)  # type: ignore[arg-type]


@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 20),
    dates=st.one_of(st.none(), st.integers(1, 4)),
    flip=st.sampled_from(["none", "columns", "both"]),
)
def test_a_view_is_what_numpy_cuts(seed: int, size: int, dates: int | None, flip: Flip) -> None:
    """Dates, crop and flip of image and fmask by plain slices, in both ways; the input stays as it was."""
    views = plan(4, seed=seed, size=size, dates=dates, flip=flip)
    image = torch.randint(-9999, 9999, (4, SHAPE[0], 6, *SHAPE[1:]), dtype=torch.int16)
    fmask = torch.randint(0, 255, (4, *SHAPE), dtype=torch.uint8)
    before = image.clone()
    for pixels in (image, fmask):
        found = view_of(pixels, views)
        assert torch.equal(_gathered(pixels, views), found)
        for at in range(4):
            steps = [slice(None, None, -1 if turned else 1) for turned in views.flips[at]]
            row, col = views.row[at], views.col[at]
            cut = pixels[at].numpy()[views.dates[at]][..., row : row + size, col : col + size]
            assert np.array_equal(found[at].numpy(), cut[..., steps[0], steps[1]])
    assert torch.equal(image, before)
    assert not views.flips[:, 0].any() or flip == "both"
    assert not views.flips.any() or flip != "none"


def test_a_view_does_not_depend_on_its_company() -> None:
    """A sample's view is the same in any batch, and another in another epoch, repeat or with another seed."""
    whole = plan(30)
    for first in (0, 11, 29):
        part = plan(1, first=first)
        for name in ("row", "col", "dates", "flips"):
            assert np.array_equal(getattr(part, name)[0], getattr(whole, name)[first])
    for change in ({"epoch": 1}, {"repeat": 1}, {"seed": 4}):
        other = plan(30, dates=2, **change)  # type: ignore[arg-type]
        assert (other.row != whole.row).mean() > 0.5


def test_all_views_are_equally_likely() -> None:
    """Positions, flips and choices of dates over 6,000 samples: chi-square, 1 in 1,000 false alarms each."""
    views = plan(6000, dates=2)
    for values, kinds, limit in (
        (views.row, 5, 18.5),
        (views.col, 8, 24.3),
        (views.flips[:, 0].astype(np.int64), 2, 10.8),
        (views.flips[:, 1].astype(np.int64), 2, 10.8),
        (views.flips @ np.array([2, 1]), 4, 16.3),
        (np.unique(views.dates, axis=0, return_inverse=True)[1].ravel(), 6, 20.5),
    ):
        seen = np.bincount(values, minlength=kinds)
        assert seen.size == kinds
        assert ((seen - 6000 / kinds) ** 2 / (6000 / kinds)).sum() < limit


def test_evaluation_looks_at_the_middle() -> None:
    """No chance in it."""
    views = central_views(3, shape=SHAPE, size=10, dates=2)
    assert (views.row.tolist(), views.col.tolist(), views.dates.tolist()) == ([5] * 3, [6] * 3, [[0, 1]] * 3)
    assert not views.flips.any()


def test_dates_stay_with_their_pixels() -> None:
    """Days are chosen like pixels, in ascending order."""
    views = plan(5, dates=3)
    days = torch.arange(20).view(5, 4) * 10
    assert dates_of(days, views).tolist() == [[at * 40 + 10 * d for d in row] for at, row in enumerate(views.dates)]
    assert (np.diff(views.dates, axis=1) > 0).all()


def test_normalising_is_the_formula() -> None:
    """By band, exactly 0 where a pixel is not valid, in the statistics' own type."""
    image = torch.randint(-500, 9000, (2, 3, 6, 5, 4), dtype=torch.int16)
    valid = torch.rand(2, 3, 5, 4) > 0.3
    mean, std = torch.rand(6) * 3000, torch.rand(6) * 900 + 100
    found = normalised(image, valid, mean, std)
    wanted = (image.numpy() - mean.numpy()[:, None, None]) / std.numpy()[:, None, None]
    wanted = np.where(valid.numpy()[:, :, None], wanted, 0.0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-6)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(("options", "words"), [({"size": 21}, "21 px does not fit"), ({"dates": 5}, "5 dates cannot")])
def test_views_that_cannot_be(options: dict[str, object], words: str) -> None:
    """Larger than the samples, more dates than there are."""
    with pytest.raises(ValueError, match=words):
        plan(2, **options)  # type: ignore[arg-type]
