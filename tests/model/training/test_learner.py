"""A step learns from the global batch: the same however it is cut, and nothing from what cannot be learnt from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from geofm_model.loading import Batch, Loader
from geofm_model.models import MaskedAutoencoder
from geofm_model.training.averages import Average
from geofm_model.training.distributed import Ranks
from geofm_model.training.heldout import first
from geofm_model.training.learner import Learner, StepResult
from geofm_model.training.masked import Preparation, errors_of
from geofm_model.training.pixel_statistics import pixel_statistics
from geofm_model.training.schedules import decaying
from geofm_model.training.settings import Pretraining

from .conftest import MakeRun

RATE = 1e-3


def learner(run: Pretraining) -> Learner:
    """A fresh one; equal settings give equal weights."""
    loader = Loader(run.data.stores, batch_size=4)
    mean, std = pixel_statistics(loader.members).tensors()
    torch.manual_seed(0)
    model = MaskedAutoencoder(run.model.encoder, run.model.decoder)
    preparation = Preparation(task=run.task, patching=run.model.encoder.patching, mean=mean, std=std, seed=run.seed)
    return Learner(model, preparation, run, Ranks())


def batch(run: Pretraining, count: int = 8) -> Batch:
    """The first batch."""
    return next(iter(Loader(run.data.stores, batch_size=count, seed=1)))


def rows(whole: Batch, start: int, stop: int) -> Batch:
    """Some samples of a batch."""
    parts = {name: value[start:stop] for name, value in vars(whole).items() if isinstance(value, Tensor)}
    return Batch(**parts, rule=whole.rule)


def weights(found: Learner) -> Tensor:
    """All in one vector."""
    return torch.cat([weight.detach().reshape(-1) for weight in found.model.parameters()])


def gradient_by_hand(run: Pretraining, parts: list[Batch], repeats: int) -> tuple[float, list[Tensor]]:
    """Loss Σ v·e² / Σ v of everything together, and its gradient, by the definition."""
    found = learner(run)
    errors = [
        errors_of(found.model, found.preparation(part, repeat=repeat), run.task).sum()
        for part in parts
        for repeat in range(repeats)
    ]
    loss = torch.stack([e.total for e in errors]).sum() / torch.stack([e.weight for e in errors]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), [weight.grad for weight in found.model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_step_is_that_of_the_mean_over_the_global_batch(make_run: MakeRun, repeats: int) -> None:
    """Loss, gradient norm and the step itself are those of one division by all valid hidden pixels."""
    run = make_run(repeats=repeats)
    whole = batch(run)
    parts = [rows(whole, 0, 5), rows(whole, 5, 8)]
    loss, gradients = gradient_by_hand(run, parts, repeats)
    found = learner(run)
    result = found.step(0, parts, RATE).result()
    assert result.loss == pytest.approx(loss, rel=1e-6)
    norm = torch.stack([grad.square().sum() for grad in gradients]).sum().sqrt()
    assert result.gradient == pytest.approx(float(norm), rel=1e-5)
    other = learner(run)
    plain = torch.optim.AdamW(decaying(other.model, run.optimizer.decay), lr=RATE, betas=run.optimizer.betas)  # type: ignore[arg-type]
    for weight, grad in zip(other.model.parameters(), gradients, strict=True):
        weight.grad = grad
    plain.step()
    for name in ("exp_avg", "exp_avg_sq"):
        one, two = (torch.cat([s[name].reshape(-1) for s in o.state.values()]) for o in (found.optimizer, plain))
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-8)
    # AdamW's first step is the gradient's sign: where that is near 0, rounding decides.
    assert float((weights(found) - weights(other)).abs().mean()) < 1e-3 * RATE


def test_a_mean_of_means_would_be_another_loss(make_run: MakeRun) -> None:
    """The parts above have different numbers of valid pixels: the promise is not empty."""
    run = make_run()
    whole = batch(run)
    both = [learner(run).step(0, [part], RATE).result() for part in (rows(whole, 0, 5), rows(whole, 5, 8))]
    together = learner(run).step(0, [whole], RATE).result()
    assert abs(sum(one.loss for one in both) / 2 - together.loss) > 1e-3
    by_weight = sum(one.loss * one.weight for one in both) / sum(one.weight for one in both)
    assert together.loss == pytest.approx(by_weight, rel=1e-5)


def test_design_weights_act_in_the_loss_where_asked_for(make_run: MakeRun) -> None:
    """A sample of weight 3 counts as three of it would."""
    run = make_run(data={"weighting": "loss"})
    whole = rows(batch(run), 0, 2)
    weighed = replace(whole, weight=torch.tensor([3.0, 1.0]))
    alone = [learner(run).step(0, [rows(whole, at, at + 1)], RATE).result() for at in range(2)]
    found = learner(run).step(0, [weighed], RATE).result()
    total = 3 * alone[0].loss * alone[0].weight + alone[1].loss * alone[1].weight
    assert found.loss == pytest.approx(total / (3 * alone[0].weight + alone[1].weight), rel=1e-5)
    assert found.weight == pytest.approx(3 * alone[0].weight + alone[1].weight)


def moments(found: Learner) -> list[float]:
    """Steps counted by the optimizer, weight by weight."""
    return [float(state["step"]) for state in found.optimizer.state.values()]


def test_a_step_without_valid_pixels_changes_nothing(make_run: MakeRun) -> None:
    """Weights, their average, moments and step counts stay; the result says why."""
    run = make_run(model={"average": 0.9})
    found = learner(run)
    found.step(0, [batch(run)], RATE)
    before = weights(found)
    assert found.average is not None
    mean = [weight.clone() for weight in found.average.model.parameters()]
    cloudy = replace(batch(run), fmask=torch.full_like(batch(run).fmask, 255))
    result = found.step(1, [cloudy], RATE).result()
    assert result.empty
    assert not result.broken
    assert torch.equal(weights(found), before)
    assert all(torch.equal(a, b) for a, b in zip(mean, found.average.model.parameters(), strict=True))
    assert set(moments(found)) == {1.0}


def test_a_gradient_that_is_not_finite_changes_nothing(make_run: MakeRun) -> None:
    """As above; the next good step goes on as if it had not been."""
    run = make_run()
    found, other = learner(run), learner(run)
    bad = found.model.decoder.predict.bias
    with torch.no_grad():
        bad[0] = float("inf")
    result = found.step(0, [batch(run)], RATE).result()
    assert result.broken
    with torch.no_grad():
        bad[0] = 0.0
    assert torch.equal(weights(found), weights(other))
    for one in (found, other):
        one.step(1, [batch(run)], RATE)
    assert torch.equal(weights(found), weights(other))


def test_clipping_shortens_the_gradient_and_logs_it_whole(make_run: MakeRun) -> None:
    """AdamW's first step does not depend on the gradient's length, so its moments are looked at."""
    run = make_run()
    clipped = make_run(optimizer={"clip": 0.01})
    one, other = learner(run), learner(clipped)
    results = [found.step(0, [batch(run)], RATE).result() for found in (one, other)]
    assert results[0].gradient == results[1].gradient > 0.01
    free, short = (
        torch.cat([state["exp_avg"].reshape(-1) for state in found.optimizer.state.values()]) for found in (one, other)
    )
    assert float(short.norm()) == pytest.approx(0.1 * 0.01, rel=1e-4)
    torch.testing.assert_close(short / short.norm(), free / free.norm())


def test_all_processes_learn_that_one_wants_to_stop(make_run: MakeRun) -> None:
    """The wish goes with the step's sums."""
    run = make_run()
    assert learner(run).step(0, [batch(run)], RATE, stop=True).result().stop
    assert not learner(run).step(0, [batch(run)], RATE).result().stop


def test_an_average_follows_the_weights(make_run: MakeRun) -> None:
    """By its formula, from the first step on, and it is what is best."""
    run = make_run(model={"average": 0.5})
    found = learner(run)
    expected = weights(found)
    for step in range(4):
        found.step(step, [batch(run)], RATE)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(found)
    assert isinstance(found.average, Average)
    assert found.best() is found.average.model
    mean = torch.cat([weight.reshape(-1) for weight in found.average.model.parameters()])
    torch.testing.assert_close(mean, expected)
    assert not any(weight.requires_grad for weight in found.average.model.parameters())


def test_bfloat16_is_near(make_run: MakeRun) -> None:
    """Under autocast the loss is within bfloat16's digits, weights and gradients stay float32."""
    exact = learner(make_run()).step(0, [batch(make_run())], RATE).result()
    found = learner(make_run(precision="bf16"))
    result = found.step(0, [batch(make_run())], RATE).result()
    assert result.loss == pytest.approx(exact.loss, rel=0.02)
    assert {weight.dtype for weight in found.model.parameters()} == {torch.float32}


def test_words_of_a_result() -> None:
    """A loss that is not finite is broken, unless there was nothing to learn from."""
    fine = StepResult(step=0, loss=1.0, gradient=1.0, weight=5.0, stop=False)
    assert not fine.empty
    assert not fine.broken
    assert replace(fine, gradient=float("nan")).broken
    assert replace(fine, gradient=float("inf")).broken
    assert replace(fine, weight=0.0, gradient=float("nan")).empty
    assert not replace(fine, weight=0.0, gradient=float("nan")).broken


def test_the_first_samples_of_a_batch(make_run: MakeRun) -> None:
    """All their parts are cut alike."""
    whole = batch(make_run())
    part = first(whole, 3)
    assert len(part) == 3
    assert torch.equal(part.sample, whole.sample[:3])
    assert first(whole, 8) is whole
