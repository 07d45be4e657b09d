"""Mask plans: a partition of the tokens, fair, hiding together what their names say, the same in any company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geofm_model.models import Masking, MaskPlan, plan_bands, plan_mask, seen_count

GRID = (3, 4, 5)
MASKINGS: tuple[Masking, ...] = ("random", "space", "time", "space-time", "dates")


def plan(count: int, masking: Masking = "random", *, first: int = 0, **options: object) -> MaskPlan:
    """Masks of samples first … first + count − 1 on GRID."""
    sample = torch.arange(first, first + count)
    fields: dict[str, object] = {"grid": GRID, "ratio": 0.75, "seed": 1, "masking": masking, **options}
    return plan_mask(sample, torch.zeros_like(sample), **fields)  # type: ignore[arg-type]


def seen_of(found: MaskPlan, grid: tuple[int, int, int] = GRID) -> torch.Tensor:
    """bool [b, t, h·w], True for seen tokens."""
    t, h, w = grid
    marks = torch.zeros(len(found.seen), t * h * w, dtype=torch.bool)
    return marks.scatter(1, found.seen, torch.ones_like(found.seen, dtype=torch.bool)).view(-1, t, h * w)


@given(
    masking=st.sampled_from(MASKINGS),
    ratio=st.floats(0.01, 0.999),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4)),
)
def test_a_mask_is_a_partition_of_all_tokens(masking: Masking, ratio: float, grid: tuple[int, int, int]) -> None:
    """As many seen tokens in each sample, each token once, in ascending order; on any grid."""
    found = plan(7, masking, ratio=ratio, grid=grid)
    n = grid[0] * grid[1] * grid[2]
    assert found.seen.shape == (7, seen_count(n, ratio))
    both = torch.cat([found.seen, found.hidden], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(n).expand(7, -1))
    assert bool((found.seen.diff(dim=1) > 0).all())
    assert bool((found.hidden.diff(dim=1) > 0).all())


def test_columns_and_dates_are_hidden_together() -> None:
    """`space` sees the same places at all dates, `time` whole dates, where the numbers allow."""
    space = seen_of(plan(50, "space"))
    assert torch.equal(space.all(dim=1), space.any(dim=1))
    time = seen_of(plan(50, "time", ratio=2 / 3))
    assert torch.equal(time.all(dim=2), time.any(dim=2))


@pytest.mark.parametrize("masking", ["time", "dates"])
def test_what_does_not_divide_is_seen_in_part_by_chance(masking: Masking) -> None:
    """A quarter of three dates is three quarters of one: another three quarters in each sample."""
    seen = seen_of(plan(400, masking))
    assert bool((seen.any(dim=2).sum(dim=1) == 1).all())
    counts = seen.any(dim=1).double().sum(dim=0)
    assert ((counts - 300) ** 2 / (300 * 0.25)).sum() * 19 / 20 < 43.8  # chi-square, 1 in 1,000 false alarms


def test_space_time_sees_some_places_at_some_dates() -> None:
    """All seen dates but the last chosen show the same places; about as large a share of either is seen."""
    grid = (4, 14, 14)
    seen = seen_of(plan(600, "space-time", grid=grid), grid)
    partly = [{tuple(row.tolist()) for row in sample if row.any()} for sample in seen]
    assert max(len(kinds) for kinds in partly) == 2  # one date, or one column, in part
    for sample in seen[:100]:
        rows = sample[sample.any(dim=1)]
        assert bool((rows <= rows[int(rows.sum(dim=1).argmax())]).all())
    dates, places = seen.any(dim=2).double().mean(), seen.any(dim=1).double().mean()
    assert 0.4 < float(dates) < 0.65
    assert 0.4 < float(places) < 0.65


def test_hidden_dates_are_a_run() -> None:
    """Every run of two of four dates is as likely as the others; with ragged ratios, an end is seen in part."""
    seen = seen_of(plan(3000, "dates", grid=(4, 4, 5), ratio=0.5), (4, 4, 5))
    assert torch.equal(seen.all(dim=2), seen.any(dim=2))
    firsts = (~seen.any(dim=2)).double().argmax(dim=1)
    hidden = ~seen.any(dim=2)
    assert bool(torch.stack([hidden[at, first : first + 2].all() for at, first in enumerate(firsts.tolist())]).all())
    counts = torch.bincount(firsts, minlength=3).double()
    assert len(counts) == 3
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8
    for ratio in (0.1, 0.4, 0.6, 0.9):
        for sample in seen_of(plan(50, "dates", grid=(5, 2, 4), ratio=ratio), (5, 2, 4)):
            touched = (~sample.all(dim=1)).nonzero().flatten()
            whole = (~sample.any(dim=1)).nonzero().flatten()
            assert touched.tolist() == list(range(int(touched[0]), int(touched[-1]) + 1))
            assert whole.tolist() in (touched.tolist(), touched[1:].tolist(), touched[:-1].tolist())


@pytest.mark.parametrize("masking", ["random", "space", "time", "space-time"])
def test_every_token_is_seen_as_often(masking: Masking) -> None:
    """Of 4,000 masks each token sees a quarter, within 4.5 standard deviations; ties favour nobody."""
    found = seen_of(plan(4000, masking)).double().mean(dim=0)
    assert float((found - 0.25).abs().max()) < 4.5 * (0.25 * 0.75 / 4000) ** 0.5


@pytest.mark.parametrize("masking", MASKINGS)
def test_a_mask_does_not_depend_on_its_company(masking: Masking) -> None:
    """A sample's is the same alone, and another in another epoch, repeat or with another seed."""
    whole = plan(40, masking)
    assert torch.equal(whole.seen[13], plan(1, masking, first=13).seen[0])
    for change in ({"repeat": 1}, {"seed": 2}, {"repeat": torch.arange(1, 41)}):
        other = plan(40, masking, **change)
        assert float((other.seen != whole.seen).any(dim=1).double().mean()) > 0.5
    sample = torch.arange(40)
    later = plan_mask(sample, torch.ones_like(sample), grid=GRID, ratio=0.75, seed=1, masking=masking)
    assert not torch.equal(later.seen, whole.seen)


@pytest.mark.parametrize("masking", MASKINGS)
def test_tokens_with_nothing_valid_are_seen_last(masking: Masking) -> None:
    """They are hidden as long as others are left to be seen; the number of seen tokens stays; chance decides."""
    usable = torch.ones(60, 60, dtype=torch.bool)
    usable[:30, :40], usable[30:, :50] = False, False
    found = plan(60, masking, usable=usable)
    assert bool((found.seen[:30] >= 40).all())
    assert bool(((found.seen[30:] >= 50).sum(dim=1) == 10).all())
    assert found.seen.shape == (60, 15)
    assert len(found.seen[30:].unique()) > 35


def test_bands_are_dropped_by_chance() -> None:
    """As many in each sample, every pair as likely, the same alone, another in another look."""
    sample = torch.arange(3000)
    none = torch.zeros_like(sample)
    dropped = plan_bands(sample, none, bands=6, drop=2, seed=1)
    assert dropped.dtype == torch.bool
    assert bool((dropped.sum(dim=1) == 2).all())
    pairs = torch.bincount((dropped.long() * 2 ** torch.arange(6)).sum(dim=1), minlength=64)
    counts = pairs[pairs > 0].double()
    assert len(counts) == 15
    assert ((counts - 200) ** 2 / 200).sum() < 36.1
    assert torch.equal(plan_bands(sample[5:6], none[:1], bands=6, drop=2, seed=1)[0], dropped[5])
    assert not torch.equal(plan_bands(sample, none, bands=6, drop=2, seed=1, repeat=1), dropped)


def test_bands_may_be_all_that_is_asked() -> None:
    """Ratio 0 sees every token where bands are dropped; the plan asks for their numbers, bands fastest."""
    dropped = plan_bands(torch.arange(2), torch.zeros(2, dtype=torch.int64), bands=3, drop=1, seed=1)
    found = plan(2, ratio=0, dropped=dropped)
    assert (found.seen.shape, found.hidden.shape) == ((2, 60), (2, 0))
    asked = found.asked(12)
    assert asked is not None
    assert torch.equal(asked, dropped.repeat(1, 4)[:, None].expand(2, 60, 12))
    partly = plan(2, ratio=0.75, dropped=dropped)
    assert torch.equal(partly.predicted, torch.cat([partly.seen, partly.hidden], dim=1))
    more = partly.asked(12)
    assert more is not None
    assert torch.equal(more[:, :15], asked[:, :15])
    assert bool(more[:, 15:].all())


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 1.0])
def test_ratios_that_cannot_be(ratio: float) -> None:
    """Something is seen and something is asked."""
    with pytest.raises(ValueError, match="ratio must lie between 0 and 1"):
        plan(2, ratio=ratio)


@pytest.mark.parametrize("drop", [0, 6])
def test_bands_that_cannot_be_dropped(drop: int) -> None:
    """None, or all."""
    with pytest.raises(ValueError, match=f"{drop} of 6 bands cannot be dropped"):
        plan_bands(torch.arange(2), torch.zeros(2, dtype=torch.int64), bands=6, drop=drop, seed=1)
