"""Weights of written samples: known phases times stated response classes.

With λ the preset share of a wave, π* = π₁ · π₂, and two rates estimated within response classes,

    weight_design = λ / (π* · r_read)          for the observable population
    weight_full   = weight_design / r_clear    for the observable and the hidden population

(Särndal, Swensson & Wretman 1992, ch. 9 on two phases, ch. 15 on response homogeneity groups). r_read is the share of
drawn samples that could be read, r_clear the share of *seen* units that were observable. Seen: looked at, and the
archive holds at least one readable scene that covers the ground, so that only cloud, a narrow swath or the gap rule hid
it. Units without any scene never had a chance; no weight stands for them, and their number is reported instead.
**Assumption**, not fact: within a class, units are hidden and samples lost independently of what they would have shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

WITHOUT_CHANCE = ("no_scene", "no_coverage", "unreadable")
"""States of units that no clear sky could have made observable: the archive has nothing of them that can be read."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Counts of the groups of one wave; a group is a stratum of one split. Shape (G,) each."""

    frame: NDArray[np.int64]
    """N: units of the group in the frame."""
    looked: NDArray[np.int64]
    """k: units of phase 1."""
    seen: NDArray[np.int64]
    """Of those, units with a readable scene over their ground."""
    observable: NDArray[np.int64]
    """o: of those, units with enough feasible dates."""
    share: NDArray[np.float64]
    """λ: the wave's share in estimates of the group's part of the frame."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of n attempted samples, and the rates behind them."""

    design: NDArray[np.float64]
    """Shape (n,), for the observable population; 0 for a sample that could not be read."""
    full: NDArray[np.float64]
    """Shape (n,), for the seen population, assuming missing at random within classes; 0 likewise."""
    read_rate: NDArray[np.float64]
    """r_read of each group, shape (G,); 1 where nothing was read, or nothing attempted."""
    clear_rate: NDArray[np.float64]
    """r_clear of each group, shape (G,); 1 where nothing was observable."""


def response_groups(
    *,
    group: NDArray[np.int64],
    state: pa.Array | pa.ChunkedArray,
    frame: NDArray[np.int64],
    share: NDArray[np.float64] | None = None,
) -> Groups:
    """Count the phase-1 units of a RESPONSE table by group.

    Parameters
    ----------
    group : shape (k,), group of each row, 0 … G − 1
    state : k names of tables.STATES
    frame : shape (G,), units of each group in the frame
    share : shape (G,), λ; 1 if None
    """
    whole = state.combine_chunks() if isinstance(state, pa.ChunkedArray) else state
    codes = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    names, index = codes.dictionary.to_pylist(), codes.indices.to_numpy(zero_copy_only=False)

    def count(*, among: tuple[str, ...]) -> NDArray[np.int64]:
        kept = np.array([name in among for name in names], dtype=np.bool_)[index]
        return np.bincount(group[kept], minlength=frame.size)

    looked = np.bincount(group, minlength=frame.size)
    return Groups(
        frame=frame,
        looked=looked,
        seen=looked - count(among=WITHOUT_CHANCE),
        observable=count(among=("drawn", "observable")),
        share=np.ones(frame.size) if share is None else share,
    )


def sample_weights(
    *,
    group: NDArray[np.int64],
    pi_star: NDArray[np.float64],
    written: NDArray[np.bool_],
    groups: Groups,
    response_class: NDArray[np.int64] | None = None,
) -> Weights:
    """Weights of the attempted samples of one wave.

    Parameters
    ----------
    group, pi_star, written : shape (n,), per attempted sample; `written` is False for a tombstone
    groups : counts of the G groups
    response_class : shape (G,), class of each group, 0 or more: units are taken to be missing at random within a
        class. None makes each group a class. Coarser classes let others stand for a group that lost all its samples.

    Raises
    ------
    ValueError
        When a probability is not in (0, 1], or samples were drawn from a group with a share of 0.
    """
    if pi_star.size and not (np.all(pi_star > 0) and np.all(pi_star <= 1)):
        raise ValueError(f"pi_star must lie in (0, 1], got {pi_star.min()} to {pi_star.max()}")
    if np.any(groups.share[group] <= 0):
        raise ValueError("a wave drew samples from a group in which its share λ is 0: the samples would count nowhere")
    classes = np.arange(groups.frame.size) if response_class is None else response_class
    read = _rate(
        np.bincount(group, weights=written, minlength=classes.size).astype(np.float64),
        np.bincount(group, minlength=classes.size).astype(np.float64),
        classes,
    )
    # Groups of a class are pooled as the frame holds them, not as they were looked at.
    expansion = groups.frame / np.maximum(groups.looked, 1)
    clear = _rate(groups.observable * expansion, groups.seen * expansion, classes)
    design = np.where(written, groups.share[group] / (pi_star * read[group]), 0.0)
    return Weights(design=design, full=design / clear[group], read_rate=read, clear_rate=clear)


def _rate(part: NDArray[np.float64], whole: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Σ part / Σ whole of each group's class, shape (G,).

    1 where the class has no part: no row is left to carry a weight there, and 1 keeps the arithmetic finite.
    """
    parts, wholes = np.bincount(classes, weights=part), np.bincount(classes, weights=whole)
    return np.where(parts > 0, parts / np.where(wholes > 0, wholes, 1.0), 1.0)[classes]


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What the waves of one part of the frame did in each group, in order of wave; shape (W, G) each."""

    asked: NDArray[np.int64]
    """Samples asked for, in the split of the group."""
    looked: NDArray[np.int64]
    """k: units of phase 1."""
    observable: NDArray[np.int64]
    """Of those, observable."""
    ranks: NDArray[np.int64]
    """Ranks looked at, those ahead of phase 1 included, ≥ k."""
    found: NDArray[np.int64]
    """Observable among those ranks, ≥ observable."""


def wave_shares(looks: Looks, frame: NDArray[np.int64]) -> NDArray[np.float64]:
    """λ of each wave in each group of one part of the frame, shape (W, G): what its 1/π* are multiplied by.

    Wave w estimates a total by E_w: for the ranks that earlier waves looked at, their observable units times the mean
    of those waves' samples; for the ranks that were left to it, N − Σ ranks, by its own sample. Given what earlier
    waves saw, both are unbiased (units of a stratum are in random order), also where a stratum ran out. The waves are
    mixed with preset shares l_w = asked_w / Σ asked, so the multiplier of wave v is

        λ_v = (k_v / N) · (l_v · (N − Σ_{u<v} ranks_u) / k_v + Σ_{w>v} l_w · found_v / observable_v)

    About l_v while few units were looked at; the λ of a group add up to 1 on average, not each time. Had later waves
    simply N / k_v for all units, they would be biased downwards in strata that earlier waves nearly used up: by 21 %
    in one with 6 observable units of 60. A wave that could have looked in a group and did not takes no part there.
    """
    left = frame - np.cumsum(looks.ranks, axis=0) + looks.ranks
    part = (looks.looked > 0) | (left <= 0)
    if np.any((looks.asked <= 0) & (looks.looked > 0)):
        raise ValueError("each wave that looked needs a positive number of samples asked for")
    given = np.where(part, np.maximum(looks.asked, 0), 0).astype(np.float64)
    preset = given / np.maximum(given.sum(axis=0), 1.0)
    later = np.cumsum(preset[::-1], axis=0)[::-1] - preset
    kept = np.where(looks.observable > 0, looks.found / np.maximum(looks.observable, 1), 1.0)
    own = np.where(looks.looked > 0, preset * left, 0.0)
    shares: NDArray[np.float64] = (own + later * kept * looks.looked) / np.maximum(frame, 1)
    return shares
