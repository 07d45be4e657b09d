"""The masked autoencoder is the published one: forward, loss and gradients, sizes, masks, valid pixels."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
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
    forward_flops,
    grid_positions,
    hidden_errors,
    patches,
    pixels,
    seen_count,
    step_flops,
)
from geofm_model.models.positions import grid_table as kept_table

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


def plan_on(plan: MaskPlan, device: str) -> MaskPlan:
    return MaskPlan(seen=plan.seen.to(device), hidden=plan.hidden.to(device))


def shuffled(b: int, keep: int) -> tuple[torch.Tensor, MaskPlan]:
    """A shuffle of all tokens of GRID, and the plan that sees its first `keep`."""
    order = torch.rand(b, int(np.prod(GRID))).argsort(dim=1)
    return order, MaskPlan(seen=order[:, :keep].sort(dim=1).values, hidden=order[:, keep:].sort(dim=1).values)


DROPPED = torch.tensor([[True, False, False, True, False, False], [False, False, False, False, True, True]])


def same_gradients(model: MaskedAutoencoder, reference: MaskedAutoencoder) -> None:
    """Every parameter has a gradient in both, and it is the same."""
    for (name, ours), (_, theirs) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        assert theirs.grad.abs().max() > 0, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


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
    same_gradients(model, reference)


@pytest.mark.parametrize("keep", [15, 60])
def test_dropped_bands_are_those_of_the_definition(keep: int) -> None:
    """Against the dense reference, with hidden tokens or none: bands are 0 before embedding, and count everywhere."""
    model = small()
    image = torch.randn(2, 3, 6, 16, 20)
    order, plan = shuffled(2, keep)
    plan = replace(plan, dropped=DROPPED)
    reference = copy.deepcopy(model)
    wanted, dense = loss_of(reference, image, order, keep, dropped=DROPPED)
    wanted.backward()
    vectors = patches(image, model.encoder.config.patching)
    predicted = model(vectors, GRID, plan)
    target = chosen(vectors, plan.predicted)
    valid = torch.ones_like(target, dtype=torch.bool)
    loss = hidden_errors(predicted, target, valid, asked=plan.asked(vectors.shape[2])).mean()
    loss.backward()
    torch.testing.assert_close(predicted, chosen(dense, plan.predicted), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    if keep == 60:  # nothing is hidden, so no token stands for it
        model.decoder.hidden.grad = reference.decoder.hidden.grad = torch.ones(1, 1, 32)
    same_gradients(model, reference)


def test_what_is_withheld_does_not_leak() -> None:
    """Pixels of dropped bands, hidden tokens and ignored ones change no prediction; a shown one changes all."""
    model, (_, plan) = small(), shuffled(2, 15)
    plan = replace(plan, hidden=plan.hidden[:, :30], dropped=DROPPED)
    vectors = torch.randn(2, 60, model.encoder.config.patching.numbers)
    predicted = model(vectors, GRID, plan)
    assert predicted.shape == (2, 45, vectors.shape[2])
    shown = torch.zeros_like(vectors, dtype=torch.bool)
    for at in range(2):
        shown[at, plan.seen[at]] = ~DROPPED[at].repeat(16)
    assert torch.equal(model(torch.where(shown, vectors, vectors + 100), GRID, plan), predicted)
    other = vectors.clone()
    other[0, plan.seen[0, 0], 1] += 1
    assert bool((model(other, GRID, plan)[0] != predicted[0]).any(dim=-1).all())


def test_positions_keep_their_precision_under_autocast() -> None:
    """bfloat16 would make far tokens look alike: where embeddings are 0, float32 positions reach the first block."""
    model, (_, plan) = small(), shuffled(2, 15)
    found: list[torch.Tensor] = []
    for half in (model.encoder, model.decoder):
        half.embed.weight.data.zero_()
        half.embed.bias.data.zero_()
        half.blocks[0].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    model.decoder.hidden.data.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(2, 60, model.encoder.config.patching.numbers), GRID, plan)
    for x, places, width in ((found[0], plan.seen, 48), (found[1], torch.cat([plan.seen, plan.hidden], dim=1), 32)):
        assert torch.equal(x[:, 1:], grid_positions(GRID, width)[1:].float()[places])


def test_positions_belong_to_no_model() -> None:
    """They are in no state_dict, are made once for copies of a model, too, and a copy stands on its own."""
    model, (_, plan) = small(), shuffled(2, 15)
    names = set(model.state_dict())
    vectors = torch.randn(2, 60, model.encoder.config.patching.numbers)
    with torch.inference_mode():
        first = model(vectors, GRID, plan)
    other = copy.deepcopy(model)
    made = kept_table.cache_info().misses
    assert torch.equal(other(vectors, GRID, plan), first)
    assert kept_table.cache_info().misses == made
    assert set(model.state_dict()) == set(other.state_dict()) == names
    assert not any("position" in name for name in names)
    other(vectors, GRID, plan).sum().backward()  # what inference made first may be trained with
    double = other.double()(vectors.double(), GRID, plan)
    torch.testing.assert_close(double.float(), first, rtol=1e-4, atol=1e-5)
    half = other.bfloat16()(vectors.bfloat16(), GRID, plan)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), first, rtol=0.1, atol=0.1)
    assert other.to("meta")(vectors.bfloat16().to("meta"), GRID, plan_on(plan, "meta")).shape == first.shape


@pytest.mark.parametrize("samples", [1, 3])
def test_chosen_values_are_those_at_their_places(samples: int) -> None:
    """As numpy's take_along_axis; values of one sample are everybody's; gradients come back to where values were."""
    values = torch.randn(samples, 10, 4, requires_grad=True)
    places = torch.from_numpy(np.random.default_rng(0).integers(0, 10, (3, 7)))
    found = chosen(values, places)
    wanted = np.take_along_axis(
        np.broadcast_to(values.detach().numpy(), (3, 10, 4)), places.numpy()[..., None].repeat(4, axis=2), axis=1
    )
    np.testing.assert_array_equal(found.detach().numpy(), wanted)
    found.sum().backward()
    counts = np.stack([np.bincount(row, minlength=10) for row in places.numpy()])
    assert values.grad is not None
    np.testing.assert_array_equal(
        values.grad[..., 0].numpy(), counts if samples == 3 else counts.sum(axis=0, keepdims=True)
    )


def test_a_wrong_shape_is_refused() -> None:
    """In these tests: axes of one name have one length, and types are those that annotations say."""
    values, places = torch.randn(2, 60, 4), torch.zeros(2, 15, dtype=torch.int64)
    for wrong in (places.int(), places[..., None]):
        with pytest.raises(TypeCheckError, match="places"):
            chosen(values, wrong)
    with pytest.raises(ValueError, match="places of 1 samples need values of as many, or of one for all, got 2"):
        chosen(values, places[:1])
    with pytest.raises(TypeCheckError, match="hidden"):
        MaskPlan(seen=places, hidden=places[:1])
    with pytest.raises(TypeCheckError, match="vectors"):
        small()(torch.randn(60, 96), GRID, shuffled(2, 15)[1])


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


@pytest.mark.parametrize("drop", [False, True])
def test_work_is_what_torch_counts(drop: bool) -> None:
    """Forward, and forward with backward; only seen tokens are embedded, only tokens to predict predicted."""
    config, decoder, grid, seen = SIZES["nano"], DecoderConfig(width=128, depth=2, heads=4), (4, 4, 4), 16
    model = MaskedAutoencoder(config, decoder)
    order = torch.randperm(64)[None]
    plan = MaskPlan(seen=order[:, :seen].sort().values, hidden=order[:, seen:].sort().values)
    if drop:
        plan = replace(plan, dropped=DROPPED[:1])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # others are not counted on the CPU
        predicted = model(torch.randn(1, 64, config.patching.numbers), grid, plan)
        forward = counter.get_total_flops()
        predicted.sum().backward()
    count = 64 if drop else None
    assert forward == forward_flops(config, decoder, grid, seen, predicted=count)
    assert counter.get_total_flops() == step_flops(config, decoder, grid, seen, predicted=count)


@pytest.mark.parametrize(("name", "dates", "wanted"), [("100M", 3, 190), ("100M", 4, 261), ("300M", 4, 526),
                                                       ("600M", 4, 1220)])  # fmt: skip
def test_work_of_the_sizes(name: str, dates: int, wanted: int) -> None:
    """Billions per sample of 224 px, as published of Prithvi's shapes, less what hidden patches' embedding, seen
    patches' prediction and their last block would add."""
    config, decoder = SIZES[name], DecoderConfig()
    n = math.prod(grid := config.patching.grid((dates, 224, 224)))
    seen, numbers = seen_count(n, 0.75), config.patching.numbers
    saved = 2 * 2 * (n - seen) * numbers * config.width + 3 * 2 * (seen + 1) * numbers * decoder.width
    saved += 3 * (seen + 1) * decoder.width * (2 * 9 * decoder.width + 4 * (n + 1))
    assert round((step_flops(config, decoder, grid, seen) + saved) / 1e9) == wanted


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


# --- loss


def test_the_loss_is_the_mean_over_valid_pixels_of_the_whole_batch() -> None:
    """Parts add up to the global mean, whatever their shares of valid pixels; weights count; samples have their own."""
    predicted, target = torch.randn(8, 5, 12), torch.randn(8, 5, 12)
    valid = torch.rand(8, 5, 12) > torch.linspace(0, 0.9, 8)[:, None, None]
    weights = torch.rand(8) + 0.5
    whole = hidden_errors(predicted, target, valid, weights=weights)
    w = (valid * weights[:, None, None]).double()
    squares = (predicted - target).double() ** 2 * w
    torch.testing.assert_close(whole.mean(), (squares.sum() / w.sum()).float())
    torch.testing.assert_close(whole.total, squares.sum((1, 2)).float())
    torch.testing.assert_close(whole.weight, w.sum((1, 2)).float())
    parts = [
        hidden_errors(predicted[at], target[at], valid[at], weights=weights[at]).sum()
        for at in (slice(0, 3), slice(3, 4), slice(4, 8))
    ]
    together = sum(float(part.total) for part in parts) / sum(float(part.weight) for part in parts)
    assert together == pytest.approx(float(whole.mean()), rel=1e-5)
    assert parts[0].total.shape == ()


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


def test_only_what_is_asked_counts() -> None:
    """Numbers that were shown have no errors, but take part in the mean and variance that normalise a patch."""
    predicted, target = torch.randn(2, 3, 10), torch.randn(2, 3, 10)
    valid, asked = torch.rand(2, 3, 10) > 0.2, torch.rand(2, 3, 10) > 0.5
    found = hidden_errors(predicted, target, valid, asked=asked)
    wanted = (predicted - target)[valid & asked].square()
    torch.testing.assert_close(found.mean(), wanted.mean())
    scaled = torch.zeros_like(target)
    for at in np.ndindex(2, 3):
        shown = target[at][valid[at]]
        scaled[at] = (target[at] - shown.mean()) / (shown.var() + 1e-6).sqrt()
    normal = hidden_errors(predicted, target, valid, asked=asked, normalise=True)
    torch.testing.assert_close(normal.mean(), (predicted - scaled)[valid & asked].square().mean())


def test_normalised_targets_are_those_of_mae_where_all_is_valid() -> None:
    """(x − mean) / √(var + 1e-6) with the unbiased variance of the patch."""
    predicted, target = torch.randn(2, 3, 10), torch.randn(2, 3, 10)
    found = hidden_errors(predicted, target, torch.ones_like(target, dtype=torch.bool), normalise=True).mean()
    scaled = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(found, (predicted - scaled).square().mean())
