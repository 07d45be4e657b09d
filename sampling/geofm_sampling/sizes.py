"""Planned sizes: how many samples and first-phase units each group gets, before anything was looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofm_sampling.allocation import allocate
from geofm_sampling.design import Design


def planned_sizes(
    sizes: NDArray[np.int64], caps: NDArray[np.int64], design: Design, splits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Samples n and first phase n₁ of each group, both shape (G,), and what had to be said.

    Parameters
    ----------
    sizes : N, units of each group in the frame, shape (G,)
    caps : units of each group that may still be drawn, shape (G,); N in a first wave
    splits : 1, or 2 where the second half of the groups is held-out ground
    """
    training, *heldout = zip(np.split(sizes, splits), np.split(caps, splits), strict=True)
    target, first, notes = _training_sizes(*training, design)
    if not heldout:
        return target, first, tuple(notes)
    held, looks, more = _heldout_sizes(*heldout[0], design)
    return np.concatenate([target, held]), np.concatenate([first, looks]), (*notes, *more)


def _training_sizes(
    sizes: NDArray[np.int64], caps: NDArray[np.int64], design: Design
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    total, floor, notes = _feasible(caps, design)
    target = allocate(sizes, total, power=plan_power(design), floor=floor, caps=caps)
    # At least first_phase · n_h where the stratum is large enough; what capped strata cannot use goes to the others.
    wanted = min(int(np.ceil(design.first_phase * total)), int(caps.sum()))
    least = np.minimum(np.floor(design.first_phase * target), caps)
    return target, allocate(sizes, wanted, power=plan_power(design), floor=least, caps=caps), notes


def _heldout_sizes(
    sizes: NDArray[np.int64], caps: NDArray[np.int64], design: Design
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Equal allocation: every stratum is judged with the same care, where there are samples enough for that."""
    total, notes = min(design.heldout_samples, int(caps.sum())), list[str]()
    if total < design.heldout_samples:
        notes.append(
            f"{design.heldout_samples} held-out samples were asked for, the held-out blocks have only {total} units."
        )
    target = allocate(sizes, total, power=heldout_power(caps, total), caps=caps)
    without = int(((caps > 0) & (target == 0)).sum())
    if total and without:
        notes.append(
            f"{total} held-out samples are too few for {int((caps > 0).sum())} strata with held-out ground: the larger "
            f"ones share them, {without} get none and cannot be judged; --heldout-samples {2 * int((caps > 0).sum())} "
            "would give each two."
        )
    return target, np.minimum(np.ceil(design.first_phase * target).astype(np.int64), caps), notes


def heldout_power(caps: NDArray[np.int64], total: int) -> float:
    """Exponent of N in the held-out allocation: equal, or ½ where not every stratum can have a sample."""
    return 0.0 if total >= int((caps > 0).sum()) else 0.5


def plan_power(design: Design) -> float:
    """Exponent of N_h in the allocation: Neyman's needs S_h, which phase 2 knows; before it is proportional."""
    return {"power": design.power, "proportional": 1.0, "equal": 0.0, "neyman": 1.0}[design.allocation]


def _feasible(sizes: NDArray[np.int64], design: Design) -> tuple[int, int, list[str]]:
    """Samples and floor that the frame can give, and what had to be said about them."""
    notes, present = [], int((sizes > 0).sum())
    total = min(design.samples, int(sizes.sum()))
    if total < design.samples:
        notes.append(f"{design.samples} samples were asked for, the frame has only {total} units left for them.")
    floor = feasible_floor(sizes, total, design)
    if floor < design.floor:
        notes.append(
            f"A floor of {design.floor} samples in each of {present} strata would take more than half of {total}; "
            f"the floor is {floor}."
        )
    if total < present:
        notes.append(f"{total} samples are fewer than {present} strata: some strata get none and are not represented.")
    return total, floor, notes


def feasible_floor(sizes: NDArray[np.int64], total: int, design: Design) -> int:
    """The design's floor, or a lower one where it would take more than half of all samples."""
    present = int((sizes > 0).sum())
    lower = min(design.floor, total // (2 * present)) if present else 0
    return lower if np.minimum(sizes, design.floor).sum() > total / 2 else design.floor
