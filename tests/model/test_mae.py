"""The masked autoencoder is the published one: forward, loss and gradients, sizes, masks, valid pixels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from geofm_model.models import (
    SIZES,
    DecoderConfig,
    EncoderConfig,
    MaskedAutoencoder,
    MaskPlan,
    Metadata,
    Patching,
    chosen,
    grid_positions,
    hidden_errors,
    patches,
    pixels,
    plan_mask,
    seen_count,
)

from .reference_mae import grid_table, loss_of

SMALL = EncoderConfig(width=48, depth=2, heads=3, patching=Patching(size=4))
GRID = (3, 4, 5)


def small(*, metadata: bool = False) -> MaskedAutoencoder:
    """A model with no weight at 0, so that every part counts."""
    torch.manual_seed(0)
    config = EncoderConfig(width=48, depth=2, heads=3, patching=Patching(size=4), metadata=metadata)
    model = MaskedAutoencoder(config, DecoderConfig(width=32, depth=2, heads=4))
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def shuffled(b: int, keep: int) -> tuple[torch.Tensor, MaskPlan]:
    """A shuffle of all tokens of GRID, and the plan that sees its first `keep`."""
    order = torch.rand(b, int(np.prod(GRID))).argsort(dim=1)
    return order, MaskPlan(seen=order[:, :keep].sort(dim=1).values, hidden=order[:, keep:].sort(dim=1).values)


@pytest.mark.parametrize("metadata", [False, True])
def test_forward_loss_and_gradients_are_those_of_the_definition(metadata: bool) -> None:
    """Against a dense reference that embeds everything, shuffles and puts back: predictions, loss, every gradient."""
    model, b, keep = small(metadata=metadata), 2, 15
    image = torch.randn(b, 3, 6, 16, 20)
    order, plan = shuffled(b, keep)
    coords = (torch.tensor([[2019.0, 2020, 2022]] * b), torch.tensor([[3.0, 180, 364]] * b), torch.tensor([46.5, -33]),
              torch.tensor([9.0, -70.5]))  # fmt: skip
    when = Metadata(year=coords[0], day=coords[1], lat=coords[2], lon=coords[3], kept=torch.ones(b, dtype=torch.bool))
    reference = copy.deepcopy(model)
    wanted, dense = loss_of(reference, image, order, keep, coords if metadata else None)
    wanted.backward()
    vectors = patches(image, model.encoder.config.patching)
    predicted = model(vectors, GRID, plan, when if metadata else None)
    target = chosen(vectors, plan.hidden)
    loss = hidden_errors(predicted, target, torch.ones_like(target, dtype=torch.bool)).mean()
    loss.backward()
    torch.testing.assert_close(predicted, chosen(dense, plan.hidden), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    for (name, ours), (_, theirs) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        assert theirs.grad.abs().max() > 0, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_positions_keep_their_precision_under_autocast() -> None:
    """bfloat16 would make far tokens look alike: what is added is of the weights' type in both halves."""
    model = small()
    vectors = torch.randn(2, 60, model.encoder.config.patching.numbers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(vectors, GRID, shuffled(2, 15)[1])
    for half in (model.encoder, model.decoder):
        assert {table.dtype for table in half.positions._known.values()} == {torch.float32}


def test_dates_are_embedded_token_by_token() -> None:
    """A patch of two dates has no date of its own."""
    with pytest.raises(ValueError, match="patches must have 1 date, got 2"):
        EncoderConfig(width=48, depth=1, heads=3, patching=Patching(dates=2), metadata=True)


def test_withheld_metadata_change_nothing() -> None:
    """A sample whose date and place are withheld is as in a model that never had them."""
    model = small(metadata=True)
    vectors = torch.randn(2, 60, model.encoder.config.patching.numbers)
    when = Metadata(
        year=torch.full((2, 3), 2020.0),
        day=torch.full((2, 3), 100.0),
        lat=torch.tensor([10.0, 20.0]),
        lon=torch.tensor([30.0, 40.0]),
        kept=torch.tensor([True, False]),
    )
    _, plan = shuffled(2, 15)
    with_them, without = model(vectors, GRID, plan, when), model(vectors, GRID, plan, None)
    assert torch.equal(with_them[1], without[1])
    assert not torch.allclose(with_them[0], without[0])


PARAMETERS = {"tiny": 31.7, "100M": 112.6, "300M": 330.4, "600M": 657.7}
"""Millions, as published; positions are no parameters."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_those_of_prithvi(name: str) -> None:
    """Encoder and Prithvi's decoder have the published number of parameters."""
    with torch.device("meta"):
        model = MaskedAutoencoder(SIZES[name])
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == PARAMETERS[name]


def test_work_is_what_the_formula_says() -> None:
    """torch's own counter; only seen tokens are embedded, and only hidden ones predicted."""
    config, decoder, grid = SIZES["nano"], DecoderConfig(width=128, depth=2, heads=4), (4, 4, 4)
    model = MaskedAutoencoder(config, decoder)
    n, k, pix, d, e = 64, 17, config.patching.numbers, config.width, decoder.width
    vectors = torch.randn(1, n, pix)
    order = torch.randperm(n)[None]
    plan = MaskPlan(seen=order[:, : k - 1].sort().values, hidden=order[:, k - 1 :].sort().values)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # others are not counted on the CPU
        model(vectors, grid, plan)
    layers = config.depth * (24 * k * d**2 + 4 * k**2 * d) + decoder.depth * (
        24 * (n + 1) * e**2 + 4 * (n + 1) ** 2 * e
    )
    ends = 2 * (k - 1) * pix * d + 2 * k * d * e + 2 * (n - k + 1) * e * pix
    assert counter.get_total_flops() == layers + ends


@given(t=st.integers(1, 4), h=st.integers(1, 5), w=st.integers(1, 5))
def test_positions_are_the_formula(t: int, h: int, w: int) -> None:
    """Row by row, for any grid."""
    torch.testing.assert_close(grid_positions((t, h, w), 32).float(), grid_table(t, h, w, 32))


@given(t=st.integers(1, 4), h=st.integers(1, 3), w=st.integers(1, 3), p=st.sampled_from([2, 4]), s=st.integers(1, 2))
def test_patches_and_pixels_are_inverse(t: int, h: int, w: int, p: int, s: int) -> None:
    """And a patch's vector has its bands fastest, then columns, rows, dates."""
    patching = Patching(size=p, dates=s, bands=3)
    image = torch.randn(2, t * s, 3, h * p, w * p)
    vectors = patches(image, patching)
    assert vectors.shape == (2, t * h * w, patching.numbers)
    assert torch.equal(pixels(vectors, patching, (t, h, w)), image)
    first = image[0, :s, :, :p, :p].permute(0, 2, 3, 1).reshape(-1)
    assert torch.equal(vectors[0, 0], first)


def test_what_does_not_fit_is_refused() -> None:
    """No border is dropped in silence."""
    with pytest.raises(ValueError, match="are no whole patches of 1 × 16 × 16"):
        patches(torch.zeros(1, 1, 6, 60, 64), Patching())


# --- masks


def plan(count: int, masking: str = "random", **options: object) -> MaskPlan:
    """Masks of samples 0 … count − 1 on GRID."""
    sample = torch.arange(count)
    fields: dict[str, object] = {"grid": GRID, "ratio": 0.75, "seed": 1, "masking": masking, **options}
    return plan_mask(sample, torch.zeros_like(sample), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("masking", ["random", "space", "time"])
@pytest.mark.parametrize("ratio", [0.3, 0.75, 0.999])
def test_a_mask_is_a_partition_of_all_tokens(masking: str, ratio: float) -> None:
    """As many seen tokens in each sample, each token once."""
    found = plan(7, masking, ratio=ratio)
    assert found.seen.shape == (7, seen_count(60, ratio))
    both = torch.cat([found.seen, found.hidden], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(60).expand(7, -1))


def test_structured_masks_hide_columns_and_dates() -> None:
    """`space` sees the same places at all dates, `time` whole dates, where the numbers allow."""
    space = plan(5, "space", ratio=0.75)
    for seen in space.seen:
        places = (seen % 20).unique(return_counts=True)
        assert places[1].tolist() == [3] * 5
    time = plan(5, "time", ratio=2 / 3)
    assert all(len((seen // 20).unique()) == 1 for seen in time.seen)


def test_every_token_is_seen_as_often() -> None:
    """Of 4,000 masks each token sees a quarter: chi-square, 1 in 1,000 false alarms; they depend on nothing else."""
    found = plan(4000)
    seen = torch.bincount(found.seen.reshape(-1), minlength=60).double()
    assert ((seen - 1000) ** 2 / (1000 * 0.75)).sum() * 59 / 60 < 98.3
    assert torch.equal(
        found.seen[3], plan_mask(torch.tensor([3]), torch.tensor([0]), grid=GRID, ratio=0.75, seed=1).seen[0]
    )
    assert not torch.equal(found.seen, plan(4000, repeat=1).seen)


def test_tokens_with_nothing_valid_are_seen_last() -> None:
    """They are hidden as long as others are left to be seen; the number of seen tokens stays."""
    usable = torch.ones(2, 60, dtype=torch.bool)
    usable[0, :40], usable[1, :50] = False, False
    found = plan(2, usable=usable)
    assert bool((found.seen[0] >= 40).all())
    assert int((found.seen[1] >= 50).sum()) == 10
    assert found.seen.shape == (2, 15)


# --- loss


def test_the_loss_is_the_mean_over_valid_pixels_of_the_whole_batch() -> None:
    """Parts add up to the global mean, whatever their shares of valid pixels; weights count."""
    predicted, target = torch.randn(8, 5, 12), torch.randn(8, 5, 12)
    valid = torch.rand(8, 5, 12) > torch.linspace(0, 0.9, 8)[:, None, None]
    weights = torch.rand(8) + 0.5
    whole = hidden_errors(predicted, target, valid, weights=weights)
    w = (valid * weights[:, None, None]).double()
    torch.testing.assert_close(whole.mean().double(), ((predicted - target).double() ** 2 * w).sum() / w.sum())
    parts = [hidden_errors(predicted[i : i + 2], target[i : i + 2], valid[i : i + 2], weights=weights[i : i + 2])
             for i in range(0, 8, 2)]  # fmt: skip
    mean = sum((part.total for part in parts), torch.zeros(())) / sum((part.weight for part in parts), torch.zeros(()))
    torch.testing.assert_close(mean, whole.mean())


def test_invalid_pixels_weigh_nothing() -> None:
    """Neither their predictions nor their targets change loss or gradients; nothing valid gives 0, not NaN."""
    predicted = torch.randn(2, 3, 10, requires_grad=True)
    target, valid = torch.randn(2, 3, 10), torch.rand(2, 3, 10) > 0.5
    for normalise in (False, True):
        loss = hidden_errors(predicted, target, valid, normalise=normalise).mean()
        other = torch.where(valid, target, torch.full_like(target, 1e4))
        torch.testing.assert_close(hidden_errors(predicted, other, valid, normalise=normalise).mean(), loss)
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert bool((gradient[~valid] == 0).all())
    assert float(hidden_errors(predicted.detach(), target, torch.zeros_like(valid)).mean()) == 0.0


def test_normalised_targets_are_those_of_mae_where_all_is_valid() -> None:
    """(x − mean) / √(var + 1e-6) with the unbiased variance of the patch."""
    predicted, target = torch.randn(2, 3, 10), torch.randn(2, 3, 10)
    found = hidden_errors(predicted, target, torch.ones_like(target, dtype=torch.bool), normalise=True).mean()
    scaled = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(found, (predicted - scaled).square().mean())
