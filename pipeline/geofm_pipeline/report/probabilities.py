"""Probabilities and weights of the drawn units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.report import words
from geofm_pipeline.report.folder import Folder
from geofm_sampling.diagnostics import deff_weights


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
    """Kish's factor of the training weights."""


def weights_panel(folder: Folder) -> WeightsPanel | None:
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
    if folder.training_samples is not None:
        weight = folder.training_samples["weight_design"].to_numpy()
        weight = weight[weight > 0]
        spreads.append(_spread("weight", "units of the frame that one chip stands for", weight))
        deff = deff_weights(weight) if weight.size else None
    return WeightsPanel(spreads=spreads, deff=deff)


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
