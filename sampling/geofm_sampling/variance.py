"""Variance of a double-expansion total in two phases, and its degrees of freedom.

For a total Σ w e over the written samples, e the (linearised) variable, 0 outside its domain, write w = a · b with
a = λ/π₁ and b = 1/(π₂ r_read), z = a e. Per *variance stratum* (a group of one wave) with frame N, phase 1 of k units
of which o are observable, and m written samples:

    T = Σ b z                                  estimated phase-1 total
    v₂ = Σ c (b z − A)²,  c = (1 − 1/b) m/(m − 1),  A = Σ c b z / Σ c
    V₁ = (1 − k/(N λ)) k S²,  (k − 1) S² = W + (T² − v₂)(1/o − 1/k),  W = Σ b z² − (T² − v₂)/o
    V = Σ (V₁ + v₂)

v₂ is the fixed-size πps variance of Hájek (1964) and Rosén (1997), which needs no joint probabilities. S² is the
variance of z over **all** k units, of which the non-observable ones are 0: an observable population is a domain of the
frame (Särndal, Swensson & Wretman 1992, §9.3–9.4 and 10.3). λ in the finite-population term accounts for waves that
share a master draw: disjoint windows of one random order have the covariance −λλ′ N S².

**Local form** (Stevens & Olsen 2003): samples are drawn evenly along a Hilbert curve, which removes the part of the
variance that a smooth trend has. A and the mean inside W then come from a window of neighbours along the curve rather
than from the whole stratum, with m/(m − 1) taken from the window. The term of the observable share stays global.

Sources: Särndal, Swensson & Wretman 1992 · Hájek 1964 · Rosén 1997 · Stevens & Olsen 2003 · Satterthwaite 1946.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 5
"""Neighbours along the curve, the sample included, that make a local mean."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Strata:
    """Counts of the variance strata, shape (V,) each."""

    frame: Floats
    """Σ N λ over the groups of the stratum."""
    looked: Floats
    """Σ k."""
    reached: Floats
    """Σ o: units of phase 1 that samples could be drawn from and stand for."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The written samples of one split, shape (n,) each, sorted by (variance stratum, Hilbert curve, unit)."""

    stratum: Ints
    """Variance stratum, ascending."""
    first: Floats
    """a = λ/π₁."""
    second: Floats
    """b = 1/(π₂ r_read), at least 1."""
    cell: Ints
    """Number of the ground cell."""
    block: Ints
    """Number of the split block."""
    p_block: Floats
    """p_b, probability of the block to be held out; 1 where the split is taken as given."""
    strata: Strata


@dataclass(frozen=True, kw_only=True)
class Variance:
    """An estimated variance."""

    value: float
    """In the square of the total's unit; NaN where it cannot be estimated."""
    freedom: float
    """Degrees of freedom of `value`, at least 1."""


def collapse(*, written: Ints, certain: NDArray[np.bool_], family: Ints) -> Ints:
    """Variance stratum of each group, shape (G,), −1 for a group without samples: each has 2 samples or more.

    A group with one sample joins the next group of its family that has samples (the former one if it is the last);
    groups are to be in the order of their stratum numbers, in which neighbours are alike. Joined groups keep their own
    weights; their variance contains what lies between them, so it is over- rather than understated (Wolter 2007, §2.5).

    Parameters
    ----------
    written : shape (G,), samples of each group
    certain : shape (G,), groups that were looked at and drawn completely; they have no variance and join nobody
    family : shape (G,), ascending; groups of different families (wave, part, split) are never joined
    """
    leader = np.full(written.size, -1, dtype=np.int64)
    leader[certain & (written > 0)] = np.flatnonzero(certain & (written > 0))
    for members in _families(np.flatnonzero((written > 0) & ~certain), family):
        # A chunk starts where the chunk before holds two samples; a last chunk of one sample joins the one before.
        chunks: list[list[int]] = []
        for g in members:
            if not chunks or written[chunks[-1]].sum() >= 2:
                chunks.append([])
            chunks[-1].append(g)
        if len(chunks) > 1 and written[chunks[-1]].sum() < 2:
            last = chunks.pop()
            chunks[-1] += last
        for chunk in chunks:
            leader[chunk] = chunk[0]
    _, dense = np.unique(leader[leader >= 0], return_inverse=True)
    leader[leader >= 0] = dense
    return leader


def _families(groups: Ints, family: Ints) -> list[list[int]]:
    cuts = np.flatnonzero(np.diff(family[groups])) + 1
    return [part.tolist() for part in np.split(groups, cuts) if part.size]


@dataclass(frozen=True, kw_only=True)
class _Neighbours:
    """For each sample the rows its local mean is made of: first … first + size − 1."""

    first: Ints
    size: Ints

    def sums(self, values: Floats) -> Floats:
        """Σ of the values over each window, shape (n,)."""
        # Differences of a cumulative sum lose digits: add at most WINDOW terms, or take whole strata by their edges.
        if self.size.max(initial=0) <= WINDOW:
            total: Floats = np.zeros(values.size)
            for step in range(WINDOW):
                inside = step < self.size
                total[inside] += values[self.first[inside] + step]
            return total
        edges = np.unique(self.first)
        return np.add.reduceat(values, edges)[np.searchsorted(edges, self.first)]

    def deviation(self, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Weighted mean of each window, and the squared distance from it, free of the value's own part in the mean.

        Of independent values with one variance σ² a value is (1 − 2ω + Σ ω²) σ² from the mean with weights ω, on
        average; with equal weights that is (1 − 1/m) σ². A window of one has no distance: NaN.
        """
        total = self.sums(weights)
        centre = self.sums(weights * values) / total
        own = 1.0 - 2.0 * weights / total + self.sums(weights**2) / total**2
        squared = (values - centre) ** 2 / own
        return centre, np.where(self.size > 1, squared, np.nan)


def _neighbours(stratum: Ints, *, local: bool) -> _Neighbours:
    """Windows within the variance stratum: the nearest along the curve, or all of its samples."""
    n = stratum.size
    starts = np.flatnonzero(np.concatenate([[True], stratum[1:] != stratum[:-1]])) if n else np.zeros(0, np.int64)
    count = np.diff(np.append(starts, n))
    first, members = np.repeat(starts, count), np.repeat(count, count)
    if not local:
        return _Neighbours(first=first, size=members)
    size = np.minimum(members, WINDOW)
    place = np.arange(n) - first
    return _Neighbours(first=first + np.clip(place - size // 2, 0, members - size), size=size)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What each variance stratum adds, V₁ + v₂, and each sample's signed root of its share, for sums over cells."""

    value: Floats
    """Shape (V,)."""
    root: Floats
    """Shape (n,)."""


def two_phase(
    e: Floats, draw: Draw, *, local: bool, cells: bool = False, inside: NDArray[np.bool_] | None = None
) -> Variance:
    """Variance of Σ a b e, given the split.

    Parameters
    ----------
    e : shape (n,), the linearised variable times the ratio of the weight used to a · b, 0 outside the domain
    local : means over neighbours along the curve instead of whole strata
    cells : add the products of samples of one ground cell in different units, as if cells and not units were drawn
    inside : shape (n,), samples of the domain, for the degrees of freedom; all if None
    """
    parts = _parts(e, draw, local=local)
    total = float(parts.value.sum())
    # Of a domain in a late wave alone the finite-population term may outweigh the rest: then nothing can be said.
    known = total >= -1e-9 * float(np.abs(parts.value).sum())
    if cells:
        sums = np.bincount(draw.cell, weights=parts.root)
        total += float((sums**2).sum() - (parts.root**2).sum())
    return Variance(value=max(total, 0.0) if known else float("nan"), freedom=_freedom(parts.value, inside, draw))


def _parts(e: Floats, draw: Draw, *, local: bool) -> _Parts:
    near, number = _neighbours(draw.stratum, local=local), draw.strata.frame.size
    z, b, h = draw.first * e, draw.second, draw.stratum
    # A stratum with one sample has no estimate: 0/0 unless its variance is known to be 0.
    with np.errstate(invalid="ignore", divide="ignore"):
        c = np.maximum(1.0 - 1.0 / b, 0.0)
        centre, spread = near.deviation(b * z, np.maximum(c, 1e-4))
        second = np.where(c > 0, c * spread, 0.0)
        v2 = np.bincount(h, weights=second, minlength=number)
        expanded, size = np.bincount(h, weights=b * z, minlength=number), draw.strata.reached
        inner = b * near.deviation(z, b)[1]
        squared = expanded**2 - v2
        # Σ (z − z̄)² over the observable units: from local means, or whole, free of bias by v₂.
        overall = np.bincount(h, weights=b * z**2, minlength=number) - squared / size
        within = np.bincount(h, weights=inner, minlength=number) if local else overall
        k, open_share = draw.strata.looked, 1.0 - draw.strata.looked / draw.strata.frame
        hidden = squared * np.maximum(1.0 / size - 1.0 / k, 0.0)
        per_unit = np.where(np.abs(open_share) > 1e-12, open_share * k / (k - 1.0), 0.0)
        v1 = np.where(per_unit == 0.0, 0.0, per_unit * (within + hidden))
        first = np.where(per_unit[h] == 0.0, 0.0, per_unit[h] * inner)
    touched = np.bincount(h, weights=z != 0, minlength=number) > 0
    root = np.sign(b * z - centre) * np.sqrt(np.maximum(first + second, 0.0))
    return _Parts(value=np.where(touched, v1 + v2, 0.0), root=np.where(touched[h], root, 0.0))


def _freedom(value: Floats, inside: NDArray[np.bool_] | None, draw: Draw) -> float:
    """Satterthwaite's degrees of freedom of Σ V_h: (Σ V_h)² / Σ V_h² / f_h, at least 1.

    f_h = (Σ w²)² / Σ w⁴ − 1 over the samples of the domain in stratum h: their number less one for equal weights, and
    few where few samples carry the weight, as the variance then hangs on those.
    """
    squared: Floats = (draw.first * draw.second) ** 2 * (1.0 if inside is None else inside)
    second = np.bincount(draw.stratum, weights=squared, minlength=value.size)
    fourth = np.bincount(draw.stratum, weights=squared**2, minlength=value.size)
    each = np.maximum(second**2 / np.where(fourth > 0, fourth, 1.0) - 1.0, 1.0)
    spread = float((value**2 / each).sum())
    return max(float(value.sum()) ** 2 / spread, 1.0) if spread > 0 else 1.0


def between_blocks(e: Floats, draw: Draw, within: Variance) -> Variance:
    """Variance over the draw of the split blocks as well, which were held out independently with p_b each.

    With u_b = Σ w e over the samples of block b and B blocks with samples,
    V = B/(B − 1) Σ (1 − p_b) u_b² + p̄ V_within: Poisson first stage, subsampled (Särndal, Swensson & Wretman 1992,
    result 4.3.1), the second term with the mean p̄ of p_b. Degrees of freedom: B − 1.

    Parameters
    ----------
    e : as in :func:`two_phase`
    within : the variance given the split
    """
    blocks, of = np.unique(draw.block, return_inverse=True)
    if blocks.size < 2:
        return Variance(value=float("nan"), freedom=1.0)
    sums = np.bincount(of, weights=draw.first * draw.second * e)
    p = np.bincount(of, weights=draw.p_block) / np.bincount(of)
    between = float(((1.0 - p) * sums**2).sum()) * blocks.size / (blocks.size - 1.0)
    return Variance(value=between + float(p.mean()) * within.value, freedom=blocks.size - 1.0)
