"""How good the features of a frozen encoder are: nearest neighbours, linear probes, effective rank.

Everything is deterministic: no optimiser, no random split. The computation runs where the features are. Memory beyond
them is a few times `ridge.BUDGET` numbers and some d × d matrices, whatever the number of samples. Encoders of
different objectives are compared by these measures, since their losses are not alike.

Sources: kNN with votes weighted by exp(similarity / 0.07) and k = 20: Wu et al. 2018 (arXiv 1805.01978), as in DINO
(Caron et al. 2021, arXiv 2104.14294). Effective rank: Roy & Vetterli 2007 (EUSIPCO), as in RankMe (arXiv 2210.02885).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geofm_model.evaluation import ridge

_ALIKE = 1e-6
"""Difference of two cosines that is rounding of float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Features of n samples and what is known of these; checked when made."""

    features: Tensor
    """float32 [n, d], pooled: one vector per sample."""
    labels: Tensor
    """Classes, whole numbers [n] of any size; or values, floating [n] or [n, q]."""

    def __post_init__(self) -> None:
        _check_features(self.features)
        if self.labels.ndim not in (1, 2) or 0 in self.labels.shape or len(self.labels) != len(self.features):
            raise ValueError(
                f"labels of shape {tuple(self.labels.shape)} do not belong to {len(self.features)} samples: give one "
                "for each"
            )
        _check_finite(self.labels, "labels")

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """How well the classes of held-out samples are told from features."""

    accuracy: float
    """Share of right answers."""
    balanced_accuracy: float
    """Mean over the held-out classes of the share of right answers in the class."""
    majority: float
    """Accuracy of always answering the most frequent class of the training samples."""
    samples: int
    """Held-out samples."""
    classes: int
    """Classes among the training samples."""
    unseen: int
    """Held-out samples of classes that no training sample has: counted as wrong answers."""
    predicted: Tensor
    """Answers, int64 [samples], on the CPU. For an accuracy with design weights and an interval, give `predicted ==
    labels` and ones to :func:`geofm_model.evaluation.estimates.ratio_estimates`."""
    penalty: float | None
    """Of a linear probe, chosen among `ridge.PENALTIES`."""


@dataclass(frozen=True, kw_only=True)
class RegressionResult:
    """How well values of held-out samples are told from features."""

    r2: tuple[float, ...]
    """1 − Σ (y − ŷ)² / Σ (y − ȳ)² of each value, ȳ of the held-out samples; negative where their mean is better."""
    samples: int
    """Held-out samples."""
    penalty: float
    """Chosen among `ridge.PENALTIES`."""


def mean_pooled(encoded: Tensor) -> Tensor:
    """Mean over the tokens but the class token: encoder output [b, 1 + k, d] → float32 [b, d]."""
    if encoded.ndim != 3 or encoded.shape[1] < 2:
        raise ValueError(f"an encoder's output has shape [b, 1 + k, d] with k ≥ 1, got {tuple(encoded.shape)}")
    return encoded[:, 1:].float().mean(dim=1)


@torch.no_grad()
def nearest_neighbours(train: Labelled, heldout: Labelled, *, k: int = 20, temperature: float = 0.07) -> ProbeResult:
    """Each held-out sample takes the class with most votes among the k training samples nearest by cosine.

    A vote counts exp(similarity / temperature). Training samples that are as near as the k-th (within 1e-6) vote, too:
    the answer does not depend on their order. Equal votes go to the smaller class number. With fewer than k training
    samples all vote. A feature vector of zeros is equally far from all.
    """
    if k < 1 or not temperature > 0:
        raise ValueError(f"k = {k} neighbours and temperature {temperature} must be positive")
    names, number = _classes(train, heldout)
    length = train.features.norm(dim=1).clamp(min=1e-12)
    answers = []
    for part in torch.split(heldout.features, max(1, ridge.BUDGET // len(train))):
        # In float32, even inside a caller's autocast; float64 would cost twice as much.
        with torch.autocast(part.device.type, enabled=False):
            similarity = torch.nn.functional.normalize(part) @ train.features.T / length
        least = similarity.topk(min(k, len(train)), dim=1).values[:, -1:]
        row, column = (similarity >= least - _ALIKE).nonzero(as_tuple=True)
        vote = ((similarity[row, column].double() - 1.0) / temperature).exp().cpu()
        # On the CPU, where sums have one order.
        cell = row.cpu() * len(names) + number[column.cpu()]
        votes = torch.bincount(cell, weights=vote, minlength=len(part) * len(names))
        answers.append(names[votes.reshape(len(part), len(names)).argmax(dim=1)])
    return _judged(torch.cat(answers), train, heldout, penalty=None)


@torch.no_grad()
def linear_probe(train: Labelled, heldout: Labelled) -> ProbeResult:
    """Classes by ridge regression on their indicators; the largest prediction wins, of equal ones the smaller number.

    Features are standardised by the training samples'; the penalty with the least squared error on every fifth training
    sample is chosen, then all training samples are fitted. With fewer than five, the middle penalty is taken.
    """
    names, number = _classes(train, heldout)
    indicators = torch.nn.functional.one_hot(number, len(names)).to(train.features.device)
    fitted = ridge.fit(train.features, indicators)
    answers = [names[fitted.predict(part).argmax(dim=1).cpu()] for part in ridge.parts(heldout.features)]
    return _judged(torch.cat(answers), train, heldout, penalty=fitted.penalty)


@torch.no_grad()
def regression_probe(train: Labelled, heldout: Labelled) -> RegressionResult:
    """Values by ridge regression, as in :func:`linear_probe`.

    Values count alike in the choice of the penalty, whatever their units. Angles such as longitude are no values: give
    sine and cosine.

    Raises
    ------
    ValueError
        Where labels are classes, or a value is the same in all held-out samples, which has no R².
    """
    _check_widths(train, heldout)
    targets, truth = (_columns(part.labels).to(train.features.device) for part in (train, heldout))
    if targets.shape[1] != truth.shape[1]:
        raise ValueError(f"training samples have {targets.shape[1]} values, held-out ones {truth.shape[1]}")
    around = (truth - truth.mean(dim=0)).square().sum(dim=0)
    flat = (around <= len(truth) * (1e-12 * truth.abs().amax(dim=0)).square()).nonzero().flatten().tolist()
    if flat:
        raise ValueError(f"value {flat[0]} of all {len(truth)} held-out samples is the same: it has no R²")
    centre, scale = ridge.centre_and_scale(targets)
    scale = torch.where(scale.isfinite(), scale, 1.0)
    fitted = ridge.fit(train.features, (targets - centre) / scale)
    answers = torch.cat([fitted.predict(part) for part in ridge.parts(heldout.features)]) * scale + centre
    r2 = 1.0 - (answers - truth).square().sum(dim=0) / around
    return RegressionResult(r2=tuple(r2.tolist()), samples=len(heldout), penalty=fitted.penalty)


@torch.no_grad()
def effective_rank(features: Tensor, *, centred: bool = False) -> float:
    """exp of the entropy of the singular values' shares σ/Σσ: 1 of one direction, d of d equal ones.

    As published the singular values are those of the features themselves: a collapsed encoder, one vector for all
    samples, has 1. What all samples have in common makes one large direction: `centred` takes their mean off first, and
    a collapsed encoder has 0. Features that are all zero have 0.

    Parameters
    ----------
    features : float32 [n, d]
    """
    _check_features(features)
    gram, centre = ridge.second_moments(features)
    values = torch.linalg.eigvalsh(gram - len(features) * torch.outer(centre, centre) if centred else gram)
    # Below this an eigenvalue is rounding: of the float64 sums, or of float32 features that are alike but for it.
    sigma = values[values > float(gram.trace()) * (ridge.FLAT**2 if centred else 1e-14)].sqrt()
    if not len(sigma):
        return 0.0
    share = sigma / sigma.sum()
    return float((-(share * share.log()).sum()).exp())


def _classes(train: Labelled, heldout: Labelled) -> tuple[Tensor, Tensor]:
    """The classes of the training samples, ascending, and each one's number among them, on the CPU."""
    _check_widths(train, heldout)
    for labels in (train.labels, heldout.labels):
        if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"classes are whole numbers [n], got {labels.dtype} {tuple(labels.shape)}")
    names, number = torch.unique(train.labels.cpu(), return_inverse=True)
    return names.to(torch.int64), number


def _columns(labels: Tensor) -> Tensor:
    if not labels.is_floating_point():
        raise ValueError(f"values to tell by regression are floating numbers, got {labels.dtype}: convert them")
    return labels.double().reshape(len(labels), -1)


def _judged(predicted: Tensor, train: Labelled, heldout: Labelled, *, penalty: float | None) -> ProbeResult:
    labels = heldout.labels.cpu()
    names, count = torch.unique(train.labels.cpu(), return_counts=True)
    right = (predicted == labels).double()
    _, number, size = torch.unique(labels, return_inverse=True, return_counts=True)
    return ProbeResult(
        accuracy=float(right.mean()),
        balanced_accuracy=float((torch.bincount(number, weights=right) / size).mean()),
        majority=float((labels == names[count.argmax()]).double().mean()),
        samples=len(labels),
        classes=len(names),
        unseen=int((~torch.isin(labels, names)).sum()),
        predicted=predicted,
        penalty=penalty,
    )


def _check_features(features: Tensor) -> None:
    if features.ndim != 2 or features.dtype != torch.float32 or 0 in features.shape:
        raise ValueError(
            f"features must be float32 [n, d] with n, d ≥ 1, got {features.dtype} {tuple(features.shape)}: pool tokens "
            "first, by mean_pooled"
        )
    _check_finite(features, "features")


def _check_widths(train: Labelled, heldout: Labelled) -> None:
    widths = train.features.shape[1], heldout.features.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(f"training features have {widths[0]} numbers, held-out ones {widths[1]}: use one encoder")


def _check_finite(values: Tensor, name: str) -> None:
    rows = values.reshape(len(values), -1)
    some = torch.split(rows, max(1, ridge.BUDGET // rows.shape[1]))
    whole = torch.cat([part.isfinite().all(dim=1) for part in some])
    if bad := (~whole).nonzero().flatten().tolist():
        raise ValueError(
            f"the {name} of {len(bad)} samples are not finite, first of sample {bad[0]}: a diverged encoder has no "
            "quality to measure"
        )
