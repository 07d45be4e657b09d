"""What a split says of itself in sentences: how much is held out, what was raised, which classes a side lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRAINING, HELD_OUT, NEITHER = np.int8(0), np.int8(1), np.int8(-1)
"""Values of a split: for training, held out for evaluation, in the buffer between the two."""


def share_notes(split: NDArray[np.int8], own: NDArray[np.bool_], block_km: float) -> list[str]:
    """Blocks held out, of all blocks with cells (`own`, shape (B,)), and the cells of either kind."""
    if not own.any():
        return [
            f"None of {own.size} blocks of {block_km:g} km is held out: there is no ground to evaluate on. Choose "
            "another seed, a larger share or smaller blocks."
        ]
    heldout, buffer = float((split == HELD_OUT).mean()), float((split == NEITHER).mean())
    return [
        f"{own.sum()} of {own.size} blocks of {block_km:g} km are held out, with {heldout:.1%} of the cells; "
        f"{buffer:.1%} of the cells lie in the buffer around held-out blocks and take no part."
    ]


def raised_notes(rare: NDArray[np.int64], p: NDArray[np.float64], share: float, names: Sequence[str]) -> list[str]:
    """Classes that raised the chances `p` of the blocks with cells above the share."""
    if not rare.size:
        return []
    return [
        f"{_listed(rare, names)} in so few blocks that a held-out one would be unlikely: the chance of these "
        f"{(p > share).sum()} blocks was raised from {share:g}, to {p.max():.2g} at most."
    ]


def class_notes(split: NDArray[np.int8], kind: NDArray[np.integer], names: Sequence[str]) -> list[str]:
    """Classes that one side lacks."""
    present = np.unique(kind)
    notes = []
    for side, words in (
        (HELD_OUT, "Without a held-out cell, hence not estimable from this split"),
        (TRAINING, "Without a training cell, hence never seen in training"),
    ):
        without = np.setdiff1d(present, kind[split == side])
        if without.size and (side == TRAINING or (split == HELD_OUT).any()):
            notes.append(f"{words}: {_listed(without, names)}.")
    return notes


def _listed(kinds: NDArray[np.integer], names: Sequence[str]) -> str:
    """`3 classes (tree/c1, tree/c2, …)`."""
    some = ", ".join(names[k] if k < len(names) else f"class {k}" for k in map(int, kinds[:5]))
    more = f" and {kinds.size - 5} more" if kinds.size > 5 else ""
    return f"{kinds.size} {'class' if kinds.size == 1 else 'classes'} ({some}{more})"
