"""Probabilities and weights of the drawn units, and what may be said about the sample, in the words that hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.report import words
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.headline import written_chips
from geofm_pipeline.report.strata import StrataPanel


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Quantiles of a probability or weight over the drawn units."""

    name: str
    """Symbol or column."""
    meaning: str
    """What it is, in plain words."""
    low: str
    """Smallest value."""
    middle: str
    """Median."""
    high: str
    """Largest value."""


@dataclass(frozen=True, kw_only=True)
class WeightsPanel:
    """What the section on probabilities shows."""

    spreads: Sequence[Spread]
    deff: float | None
    """Kish's design effect of the weights."""
    claims: Sequence[str]
    """What may be said about the sample."""


def weights_panel(folder: Folder, strata: StrataPanel | None) -> WeightsPanel | None:
    """Probabilities and weights of the drawn units; None before the draw."""
    places = folder.places
    if places is None or not places.num_rows:
        return None
    spreads = [
        _spread("π₁", "chance to be looked at", places["pi1"].to_numpy()),
        _spread("π₂", "chance to be drawn, given the look", places["pi2_given_phase1"].to_numpy()),
        _spread("π*", "π₁ × π₂", places["pi_star"].to_numpy()),
    ]
    deff = None
    if folder.samples is not None:
        weight = folder.samples["weight_design"].to_numpy()
        weight = weight[weight > 0]
        spreads.append(_spread("weight", "units of the frame that one chip stands for", weight))
        deff = float(weight.size * (weight**2).sum() / weight.sum() ** 2) if weight.size else None
    return WeightsPanel(spreads=spreads, deff=deff, claims=_claims(folder, strata))


def _spread(name: str, meaning: str, values: NDArray[np.float64]) -> Spread:
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0]) if values.size else (np.nan,) * 3
    return Spread(
        name=name,
        meaning=meaning,
        low=words.probability(low),
        middle=words.probability(middle),
        high=words.probability(high),
    )


def _first_claim(folder: Folder) -> str:
    """Known chances; a sample smaller than its strata leaves some of them out, and that is said."""
    without = [h for h in folder.frame_units if folder.chances.get(h, (0.0, 0.0))[0] <= 0]
    if not without:
        return "Every unit of the frame had a known, non-zero chance to be looked at."
    units = sum(folder.frame_units[h] for h in without)
    return (
        f"Every unit had a known, non-zero chance to be looked at, except the {words.count_of(units, 'unit')} of "
        f"{words.count_of(len(without), 'stratum', 'strata')} that the plan gave no sample: nothing is said about them."
    )


def _claims(folder: Folder, strata: StrataPanel | None) -> list[str]:
    """What is published, in the words that hold; no more than that."""
    claims = [_first_claim(folder)]
    totals = (
        "Weighted totals describe the observable population, unbiased before raking and trimming (this version does "
        "neither)"
    )
    if strata is not None and strata.empty:
        totals += f", for the strata that have chips ({len(strata.empty)} of {strata.count} have none)"
    claims.append(totals + ".")
    if folder.samples is not None and (failed := folder.samples.num_rows - (written_chips(folder) or 0)):
        claims.append(
            f"{words.count_of(failed, 'drawn unit')} could not be read; the written ones of the same stratum carry "
            "their weight, as if failures struck at random within it; a stratum without any written chip has none."
        )
    claims += [
        "The same seed and the same frame give the same sample, however many workers ran.",
        "Every prefix of a stratum's ranks is itself a valid, spatially balanced probability sample.",
        "Clouds keep some units from being observed; the toll is shown for each stratum. The weights for the full "
        "frame (weight_full) assume that, within a stratum, units are missing at random.",
        "The weights undo the balance between strata: estimates need them, training goes without them by default.",
    ]
    return claims
