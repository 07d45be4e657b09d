"""How precise averages over the region are, and what the design did to them: both design effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geofm_pipeline.report import words
from geofm_pipeline.report.evidence import Evidence
from geofm_pipeline.report.folder import Folder, column
from geofm_pipeline.report.ground import TRAINING
from geofm_sampling.estimation import estimate


@dataclass(frozen=True, kw_only=True)
class Average:
    """One estimated average over the observable population."""

    name: str
    unit: str
    """`share` for shares of the ground."""
    estimate: float
    low: float
    """Lower end of the 95 % interval; NaN where it cannot be known."""
    high: float
    deff_weights: float
    """Kish's factor."""
    deff_design: float
    """Variance over that of as many simple random samples; NaN where it cannot be known."""

    def said(self, value: float) -> str:
        """One of its values in words; the interval of a share ends at 0 and 1."""
        if not np.isfinite(value):
            return "–"
        if self.unit == "share":
            return words.percent(min(max(value, 0.0), 1.0))
        return words.number(value, 1 if self.unit == "mm" else 2)


def averages(folder: Folder, evidence: Evidence | None) -> Sequence[Average] | None:
    """Weighted averages of some variables over the written training chips; None where they cannot be estimated."""
    if folder.samples is None or folder.samples.num_rows == 0:
        return None
    try:
        return [_average(folder, name, unit, values) for name, unit, values in _variables(folder, evidence)] or None
    except ValueError:
        # Samples of an older layout carry no counts of their phases: nothing is known about their variance.
        return None


def _variables(folder: Folder, evidence: Evidence | None) -> list[tuple[str, str, np.ndarray]]:
    """(name, unit, value per attempted sample): entropy and the covariates of the self-test."""
    assert folder.samples is not None, "asked for only where there are samples"
    found = []
    entropy = column(folder.samples, "entropy")
    if entropy is not None:
        found.append(("spectral entropy", "bits", entropy))
    if evidence is not None:
        at = evidence.at(folder.samples["unit"].to_numpy())
        if (at >= 0).all():
            values = evidence.looked.values[at]
            labels = evidence.labels()[3:]
            found += [(name, unit, values[:, i]) for (name, unit), i in zip(labels, evidence.tested, strict=True)]
    return [(name, unit, values) for name, unit, values in found if np.ptp(values[np.isfinite(values)]) > 0]


def _average(folder: Folder, name: str, unit: str, values: np.ndarray) -> Average:
    row = estimate(folder.samples, values, split=TRAINING).to_pylist()[0]
    return Average(
        name=name,
        unit=unit,
        **{key: float(row[key]) for key in ("estimate", "low", "high", "deff_weights", "deff_design")},
    )
