"""Probes of features: as plain numpy has them, in any order and part, and clear where nothing can be said."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geofm_model.evaluation import ridge
from geofm_model.evaluation.probes import (
    Labelled,
    ProbeResult,
    effective_rank,
    linear_probe,
    mean_pooled,
    nearest_neighbours,
    regression_probe,
)
from geofm_model.models import Encoder, EncoderConfig, Patching

Floats = NDArray[np.float64]
Probe = Callable[[Labelled, Labelled], ProbeResult]
PROBES = [nearest_neighbours, linear_probe]


def clusters(n: int, *, seed: int, classes: int = 4, width: int = 12, noise: float = 1.0) -> Labelled:
    """Classes −3, 4, 11, … of unequal frequency around centres of their own, on a common offset."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    number = np.minimum(rng.geometric(0.4, n) - 1, classes - 1)
    features = 5.0 + centres[number] + noise * rng.standard_normal((n, width))
    return Labelled(features=torch.tensor(features, dtype=torch.float32), labels=torch.tensor(7 * number - 3))


def plain_neighbours(train: Labelled, heldout: Labelled, k: int, temperature: float) -> list[int]:
    x, z = (part.features.double().numpy() for part in (train, heldout))
    x, z = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, z))
    answers = []
    for row in z @ x.T:
        near = row >= np.sort(row)[::-1][min(k, row.size) - 1] - 1e-6
        votes = {
            label: np.exp(row[near & (train.labels.numpy() == label)] / temperature).sum()
            for label in np.unique(train.labels.numpy()).tolist()
        }
        answers.append(max(votes, key=lambda label: (votes[label], -label)))
    return answers


def plain_ridge(x: Floats, y: Floats, z: Floats) -> tuple[Floats, float]:
    """Normal equations with a column of ones, of standardised features; the penalty tried on every fifth row."""
    centre, spread = x.mean(axis=0), x.std(axis=0)
    x, z = ((part - centre) / spread for part in (x, z))

    def solved(x: Floats, y: Floats, penalty: float) -> Floats:
        ones = np.column_stack([np.ones(len(x)), x])
        damped = ones.T @ ones + penalty * len(x) * np.diag([0.0, *np.ones(x.shape[1])])
        return np.asarray(np.linalg.solve(damped, ones.T @ y), dtype=np.float64)

    def predicted(x: Floats, weights: Floats) -> Floats:
        return np.asarray(np.column_stack([np.ones(len(x)), x]) @ weights, dtype=np.float64)

    kept = np.arange(len(x)) % 5 == 4
    errors = {
        penalty: ((predicted(x[kept], solved(x[~kept], y[~kept], penalty)) - y[kept]) ** 2).sum()
        for penalty in ridge.PENALTIES
    }
    best = min(errors, key=errors.__getitem__)
    return predicted(z, solved(x, y, best)), best


@given(seed=st.integers(0, 40), k=st.sampled_from([1, 3, 20, 500]), temperature=st.sampled_from([0.07, 1.0]))
@settings(max_examples=25)
def test_neighbours_vote_as_the_plain_definition(seed: int, k: int, temperature: float) -> None:
    """Also with fewer training samples than k: then all vote."""
    train, heldout = clusters(60, seed=seed), clusters(23, seed=seed + 1000)
    found = nearest_neighbours(train, heldout, k=k, temperature=temperature)
    assert found.predicted.tolist() == plain_neighbours(train, heldout, k, temperature)


@given(seed=st.integers(0, 40), noise=st.sampled_from([0.3, 1.0, 4.0]))
@settings(max_examples=20)
def test_the_linear_probe_is_ridge_on_indicators(seed: int, noise: float) -> None:
    """Answers and penalty are those of the normal equations."""
    train, heldout = clusters(83, seed=seed, noise=noise), clusters(31, seed=seed + 1000, noise=noise)
    found = linear_probe(train, heldout)
    names = np.unique(train.labels.numpy())
    indicators = (train.labels.numpy()[:, None] == names).astype(np.float64)
    answers, penalty = plain_ridge(train.features.double().numpy(), indicators, heldout.features.double().numpy())
    assert found.penalty == penalty
    assert found.predicted.tolist() == names[answers.argmax(axis=1)].tolist()


@pytest.mark.parametrize("probe", PROBES)
def test_shares_of_right_answers_are_the_usual_ones(probe: Probe) -> None:
    """Accuracy, mean of the classes' recalls, and what always answering the most frequent training class gives."""
    train, heldout = clusters(200, seed=1), clusters(90, seed=2)
    found = probe(train, heldout)
    truth, answers = heldout.labels.numpy(), found.predicted.numpy()
    names, count = np.unique(train.labels.numpy(), return_counts=True)
    assert found.accuracy == pytest.approx((truth == answers).mean())
    recalls = [(answers[truth == label] == label).mean() for label in np.unique(truth)]
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls))
    assert found.majority == pytest.approx((truth == names[count.argmax()]).mean())
    assert (found.samples, found.classes, found.unseen) == (90, 4, 0)
    assert found.accuracy > found.majority + 0.2


@pytest.mark.parametrize("probe", PROBES)
def test_noise_is_told_no_better_than_by_the_majority(probe: Probe) -> None:
    """Features that have nothing to do with the labels: the accuracy is near or below that of the majority."""
    rng = torch.Generator().manual_seed(0)
    train, heldout = (
        Labelled(features=torch.randn(n, 8, generator=rng), labels=torch.randint(0, 2, (n,), generator=rng))
        for n in (400, 400)
    )
    found = probe(train, heldout)
    assert abs(found.accuracy - 0.5) < 4 * 0.5 / math.sqrt(400)


@pytest.mark.parametrize("probe", PROBES)
def test_the_order_of_samples_does_not_matter_to_neighbours_nor_twice_to_anyone(probe: Probe) -> None:
    """The same call gives the same answers; neighbours do not ask for the order of training samples."""
    train, heldout = clusters(70, seed=3), clusters(40, seed=4)
    found = probe(train, heldout)
    assert torch.equal(probe(train, heldout).predicted, found.predicted)
    if probe is nearest_neighbours:
        order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
        turned = Labelled(features=train.features[order], labels=train.labels[order])
        assert torch.equal(probe(turned, heldout).predicted, found.predicted)


@pytest.mark.parametrize("probe", PROBES)
def test_one_class_is_always_answered(probe: Probe) -> None:
    """With one class among the training samples it is the answer, and the majority's accuracy is its own."""
    train, heldout = clusters(30, seed=5), clusters(20, seed=6)
    one = Labelled(features=train.features, labels=torch.full((30,), 4))
    found = probe(one, heldout)
    assert set(found.predicted.tolist()) == {4}
    assert found.accuracy == found.majority == pytest.approx(float((heldout.labels == 4).float().mean()))
    assert found.classes == 1
    assert found.unseen == int((heldout.labels != 4).sum())


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_a_collapsed_encoder_knows_the_majority_only(probe: Probe, rounding: float) -> None:
    """One vector for all samples, but for rounding: the answer is the most frequent class, whatever the order."""
    train, heldout = clusters(50, seed=7), clusters(50, seed=8)
    rng = torch.Generator().manual_seed(0)
    flat = [2.0 * torch.ones(50, 12) * (1 + rounding * torch.randn(50, 12, generator=rng)) for _ in range(2)]
    found = probe(Labelled(features=flat[0], labels=train.labels), Labelled(features=flat[1], labels=heldout.labels))
    assert found.accuracy == found.majority
    assert set(found.predicted.tolist()) == {-3}


@pytest.mark.parametrize("probe", PROBES)
def test_classes_no_training_sample_has_are_wrong_and_counted(probe: Probe) -> None:
    """Held-out labels that are unseen in training count as wrong answers, and as a class of the balanced accuracy."""
    train = clusters(100, seed=9, classes=2, noise=0.01)
    heldout = clusters(40, seed=10, classes=2, noise=0.01)
    labels = heldout.labels.clone()
    labels[:10] = 1000
    found = probe(train, Labelled(features=heldout.features, labels=labels))
    assert found.unseen == 10
    assert found.accuracy == pytest.approx(0.75)
    assert found.balanced_accuracy == pytest.approx(2 / 3)


def test_few_training_samples_are_enough_to_answer() -> None:
    """Two samples of two classes: neighbours and the linear probe, with its middle penalty, tell them apart."""
    train = Labelled(features=torch.tensor([[1.0, 0.0], [0.0, 1.0]]), labels=torch.tensor([8, 9]))
    heldout = Labelled(features=torch.tensor([[2.0, 1.0], [1.0, 3.0], [5.0, 0.0]]), labels=torch.tensor([8, 9, 8]))
    assert nearest_neighbours(train, heldout).accuracy == 1.0
    found = linear_probe(train, heldout)
    assert found.accuracy == 1.0
    assert found.penalty == ridge.PENALTIES[len(ridge.PENALTIES) // 2]


@given(seed=st.integers(0, 40))
@settings(max_examples=15)
def test_r2_is_the_plain_definition(seed: int) -> None:
    """1 − Σ (y − ŷ)² / Σ (y − ȳ)² of each value, ŷ by the normal equations; other units give the same."""
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal((90, 6)), rng.standard_normal((40, 6))
    y, truth = (
        np.column_stack([part @ [1, 2, 0, 0, 1, -1], part[:, 0] ** 2]) + rng.standard_normal((len(part), 2))
        for part in (x, z)
    )
    x32, z32 = (torch.tensor(part, dtype=torch.float32) for part in (x, z))
    answers, penalty = plain_ridge(x32.double().numpy(), (y - y.mean(axis=0)) / y.std(axis=0), z32.double().numpy())
    answers = answers * y.std(axis=0) + y.mean(axis=0)
    want = 1 - ((answers - truth) ** 2).sum(axis=0) / ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    train, heldout = (Labelled(features=a, labels=torch.tensor(b)) for a, b in ((x32, y), (z32, truth)))
    found = regression_probe(train, heldout)
    assert found.r2 == pytest.approx(want.tolist(), abs=1e-9)
    assert (found.samples, found.penalty) == (40, penalty)
    scale, shift = torch.tensor([1e4, 1e-3]), torch.tensor([-7e4, 5e-3])
    changed = [Labelled(features=part.features, labels=part.labels * scale + shift) for part in (train, heldout)]
    assert regression_probe(*changed).r2 == pytest.approx(want.tolist(), abs=1e-6)


def test_a_value_that_never_varied_in_training_is_answered_by_its_mean() -> None:
    """A constant training value predicts itself: R² of the held-out values is 0 or less, no NaN."""
    rng = torch.Generator().manual_seed(1)
    train = Labelled(features=torch.randn(30, 3, generator=rng), labels=torch.full((30,), 2.0))
    heldout = Labelled(features=torch.randn(20, 3, generator=rng), labels=torch.randn(20, generator=rng))
    (r2,) = regression_probe(train, heldout).r2
    mean = heldout.labels.mean()
    assert r2 == pytest.approx(1 - float((2 - heldout.labels).square().sum() / (heldout.labels - mean).square().sum()))


def plain_rank(features: Floats) -> float:
    sigma = np.linalg.svd(features, compute_uv=False)
    share = sigma[sigma > 1e-6 * sigma.max()]
    share = share / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


@given(n=st.integers(1, 40), d=st.integers(1, 12), seed=st.integers(0, 100))
def test_the_effective_rank_is_the_entropy_of_singular_values(n: int, d: int, seed: int) -> None:
    """As numpy's decomposition has it, of the features and of the features without their mean."""
    features = torch.tensor(3 + np.random.default_rng(seed).standard_normal((n, d)), dtype=torch.float32)
    x = features.double().numpy()
    assert effective_rank(features) == pytest.approx(plain_rank(x), rel=1e-5)
    if n > 1:
        assert effective_rank(features, centred=True) == pytest.approx(plain_rank(x - x.mean(axis=0)), rel=1e-3)


def test_effective_ranks_that_are_known() -> None:
    """d orthogonal directions of one length have d; one vector has 1, without its mean 0; zeros have 0."""
    assert effective_rank(torch.eye(7).repeat(5, 1)) == pytest.approx(7.0)
    one = torch.randn(6, generator=torch.Generator().manual_seed(2)).repeat(9, 1)
    noisy = one * (1 + 1e-7 * torch.randn(9, 6, generator=torch.Generator().manual_seed(3)))
    for collapsed in (one, noisy):
        assert effective_rank(collapsed) == pytest.approx(1.0, abs=1e-4)
        assert effective_rank(collapsed, centred=True) == 0.0
    assert effective_rank(torch.zeros(4, 3)) == 0.0


def test_pooled_features_leave_out_the_class_token() -> None:
    """The mean over all tokens but the first, float32 also of bfloat16; of a real encoder's output, too."""
    encoded = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(4))
    changed = encoded.clone()
    changed[:, 0] = 1e9
    want = encoded[:, 1:].numpy().mean(axis=1)
    assert mean_pooled(encoded).numpy() == pytest.approx(want, abs=1e-6)
    assert torch.equal(mean_pooled(changed), mean_pooled(encoded))
    assert mean_pooled(encoded.bfloat16()).dtype == torch.float32
    encoder = Encoder(EncoderConfig(width=48, depth=1, heads=4, patching=Patching(size=4)))
    with torch.no_grad():
        assert mean_pooled(encoder(torch.zeros(2, 8, 96), (2, 2, 2))).shape == (2, 48)
    with pytest.raises(ValueError, match=r"got \(2, 1, 8\)"):
        mean_pooled(torch.zeros(2, 1, 8))


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most numbers in any memory that an operation takes, which its inputs did not have."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {part.untyped_storage().data_ptr() for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)}
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in given:
                self.numbers = max(self.numbers, made.numel())
        return out


def test_memory_is_bounded_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No temporary tensor is larger than the budget or some numbers per sample; answers are those of one part."""
    train, heldout = clusters(1500, seed=11, width=40), clusters(700, seed=12, width=40)
    values = [Labelled(features=part.features, labels=part.features[:, :2] ** 2) for part in (train, heldout)]
    want = [probe(train, heldout).predicted for probe in PROBES], regression_probe(*values).r2
    rank = effective_rank(train.features)
    monkeypatch.setattr(ridge, "BUDGET", 12_000)
    with _Largest() as largest:  # type: ignore[no-untyped-call]
        found = [probe(train, heldout).predicted for probe in PROBES], regression_probe(*values).r2
        assert effective_rank(train.features) == pytest.approx(rank, rel=1e-9)
    assert all(torch.equal(*pair) for pair in zip(want[0], found[0], strict=True))
    assert found[1] == pytest.approx(want[1], abs=1e-9)
    assert 5_000 < largest.numbers <= 12_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.tensor([[1.0], [math.nan]])}, "features of 1 samples are not finite, first of sample 1"),
        ({"features": torch.tensor([[math.inf], [math.nan]])}, "features of 2 samples"),
        ({"labels": torch.tensor([0.5, math.nan])}, "labels of 1 samples are not finite"),
        ({"features": torch.zeros(2, 3, 4)}, r"float32 \[n, d\].*pool tokens"),
        ({"features": torch.zeros(2, 3, dtype=torch.float64)}, "float32"),
        ({"features": torch.zeros(0, 3), "labels": torch.zeros(0)}, "n, d ≥ 1"),
        ({"labels": torch.zeros(3)}, "do not belong to 2 samples"),
    ],
)
def test_bad_features_are_refused(changes: dict[str, Tensor], message: str) -> None:
    """A record of features that say nothing cannot be made; the message says why."""
    given = {"features": torch.zeros(2, 1), "labels": torch.zeros(2)} | changes
    with pytest.raises(ValueError, match=message):
        Labelled(**given)


def test_probes_that_cannot_be_are_refused() -> None:
    """Classes that are no whole numbers, values that are; other widths; k of 0; a value without spread."""
    classes, values = (
        Labelled(features=torch.rand(6, 2), labels=labels) for labels in (torch.arange(6), torch.zeros(6))
    )
    wide = Labelled(features=torch.rand(6, 3), labels=torch.arange(6))
    for probe in PROBES:
        with pytest.raises(ValueError, match="classes are whole numbers"):
            probe(values, values)
        with pytest.raises(ValueError, match="have 3 numbers, held-out ones 2"):
            probe(wide, classes)
    with pytest.raises(ValueError, match="k = 0"):
        nearest_neighbours(classes, classes, k=0)
    with pytest.raises(ValueError, match="floating numbers"):
        regression_probe(classes, classes)
    with pytest.raises(ValueError, match="value 0 of all 6 held-out samples is the same"):
        regression_probe(values, values)
    with pytest.raises(ValueError, match="not finite"):
        effective_rank(torch.full((2, 2), math.nan))
