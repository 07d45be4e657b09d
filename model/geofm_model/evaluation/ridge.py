"""Ridge regression in closed form, some samples at a time: what linear probes are made of.

Features are standardised, the offset is not penalised, the penalty is chosen on every fifth sample. All sums are
float64, on the device of the features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BUDGET = 1 << 23
"""Numbers in the largest temporary tensor, d × d matrices apart."""
PENALTIES = tuple(10.0**power for power in range(-6, 3))
"""Penalties per sample, in units of a standardised feature's variance, that are tried."""
PART = 5
"""Every fifth sample is kept back to choose the penalty by."""
FLAT = 1e-6
"""Spread of a feature, relative to its size, that is rounding of float32 and nothing else."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ridge:
    """A fitted linear map of features."""

    centre: Tensor
    """[d] mean of the features."""
    scale: Tensor
    """[d] their standard deviation; ∞ of those that do not vary."""
    map: Map
    """Of standardised features."""
    penalty: float

    def predict(self, features: Tensor) -> Tensor:
        """[n, d] → float64 [n, q]; n is small."""
        return self.map((features.double() - self.centre) / self.scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """x → x weights + offset."""

    weights: Tensor
    """[d, q]."""
    offset: Tensor
    """[q]."""

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weights + self.offset


def fit(features: Tensor, targets: Tensor) -> Ridge:
    """The penalty with the least squared error on every fifth sample, then a map fitted to all samples.

    Parameters
    ----------
    features : float32 [n, d]; with fewer samples than PART the middle penalty is taken
    targets : [n, q], in comparable units
    """
    centre, scale = centre_and_scale(features)
    every = _sums(features, targets, centre, scale)
    at = len(PENALTIES) // 2
    if len(features) >= PART:
        kept = slice(PART - 1, None, PART)
        x, y = features[kept], targets[kept]
        maps = every.without(_sums(x, y, centre, scale)).maps()
        squared = torch.zeros(len(PENALTIES), dtype=torch.float64)
        for part, truth in zip(parts(x), torch.split(y, _rows(x)), strict=True):
            standard = (part - centre) / scale
            squared += torch.stack([(one(standard) - truth).square().sum() for one in maps]).cpu()
        # Of equal ones the larger: rounding must not choose.
        at = int((squared <= squared.min() * (1 + 1e-9)).nonzero().max())
    return Ridge(centre=centre, scale=scale, map=every.maps()[at], penalty=PENALTIES[at])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """Sums over some standardised samples, from which the regression with any penalty follows."""

    count: int
    x: Tensor
    """Σ x, [d]."""
    y: Tensor
    """Σ y, [q]."""
    xx: Tensor
    """Σ x xᵀ, [d, d]."""
    xy: Tensor
    """Σ x yᵀ, [d, q]."""

    def without(self, other: _Sums) -> _Sums:
        """The sums over the samples that are not among the other's."""
        return _Sums(**{name: getattr(self, name) - getattr(other, name) for name in vars(self)})

    def maps(self) -> list[Map]:
        """With each of PENALTIES."""
        x, y = self.x / self.count, self.y / self.count
        values, vectors = torch.linalg.eigh(self.xx / self.count - torch.outer(x, x))
        turned = vectors.T @ (self.xy / self.count - torch.outer(x, y))
        fitted = [vectors @ (turned / (values.clamp(min=0.0) + penalty)[:, None]) for penalty in PENALTIES]
        return [Map(weights=weights, offset=y - x @ weights) for weights in fitted]


def _sums(features: Tensor, targets: Tensor, centre: Tensor, scale: Tensor) -> _Sums:
    (n, d), q = features.shape, targets.shape[1]
    x, y, xx, xy = (features.new_zeros(shape, dtype=torch.float64) for shape in ((d,), (q,), (d, d), (d, q)))
    for part, target in zip(parts(features), torch.split(targets, _rows(features)), strict=True):
        standard, wanted = (part - centre) / scale, target.double()
        x += standard.sum(dim=0)
        y += wanted.sum(dim=0)
        xx += standard.T @ standard
        xy += standard.T @ wanted
    return _Sums(count=n, x=x, y=y, xx=xx, xy=xy)


def centre_and_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [d] of the columns of [n, d], float64; ∞ for one that does not vary."""
    centre, spread = (values.new_zeros(values.shape[1], dtype=torch.float64) for _ in range(2))
    for part in parts(values):
        centre += part.sum(dim=0) / len(values)
    for part in parts(values):
        spread += (part - centre).square().sum(dim=0) / len(values)
    scale = spread.sqrt()
    return centre, torch.where(scale > FLAT * (spread + centre.square()).sqrt(), scale, torch.inf)


def second_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Σ x xᵀ [d, d] and the mean [d] of [n, d], float64."""
    width = features.shape[1]
    gram, centre = (features.new_zeros(shape, dtype=torch.float64) for shape in ((width, width), (width,)))
    for part in parts(features):
        gram += part.T @ part
        centre += part.sum(dim=0) / len(features)
    return gram, centre


def parts(values: Tensor) -> Iterator[Tensor]:
    """The rows of [n, d] as float64, some at a time."""
    return (part.double() for part in torch.split(values, _rows(values)))


def _rows(values: Tensor) -> int:
    return max(1, BUDGET // values.shape[1])
