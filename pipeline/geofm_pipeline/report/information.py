"""What single places add: entropy of what was drawn, near-duplicates, and how far sizes moved probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from geofm_pipeline.report.charts import Chart
from geofm_pipeline.report.diagnosis import Diagnosis, entropies
from geofm_pipeline.report.folder import Folder, column, wave_of
from geofm_sampling.diagnostics import weighted_ecdf
from geofm_sampling.similarity import RADIUS

_MOST_STEPS = 300
"""Steps of a curve; finer ones cannot be seen."""


@dataclass(frozen=True, kw_only=True)
class InformationPanel:
    """What the section shows; None where it was not measured."""

    picture: Markup | None
    """Distribution of entropy over observable ground and over drawn units."""
    medians: tuple[float, float] | None
    """Median entropy of the observable ground and of the drawn units, bits."""
    drawn: tuple[float, int] | None
    """Share of the drawn units with a near-duplicate among them, and units judged."""
    observable: tuple[float, int] | None
    """The same among all observable units looked at."""
    radius: float
    """Distance of descriptors within which units look alike, reflectance."""
    moved: bool
    """Whether any unit got another chance than its stratum's others because of what it showed."""
    favoured: bool
    """Whether varied places had a higher chance within their stratum."""
    sizes: Sequence[tuple[str, str, str, str]]
    """(what, smallest, middle, largest) over the observable units."""


def information_panel(folder: Folder, found: Diagnosis) -> InformationPanel | None:
    """The panel; None where no overview was read."""
    known = entropies(folder)
    if known is None and found.duplicates is None:
        return None
    return InformationPanel(
        picture=_picture(*known) if known is not None else None,
        medians=_medians(*known) if known is not None else None,
        drawn=found.duplicates,
        observable=found.duplicates_before,
        radius=RADIUS,
        moved=moved(folder),
        favoured=_favoured(folder) and moved(folder),
        sizes=_sizes(folder),
    )


def _favoured(folder: Folder) -> bool:
    """Whether the exponent of entropy in a unit's size is above 0; designs without the option had it at 1."""
    record = folder.records.get(folder.waves[0].number)
    exponent = record.part("design").number("entropy") if record is not None else None
    return exponent is None or exponent > 0


def _medians(entropy: np.ndarray, weight: np.ndarray, drawn: np.ndarray) -> tuple[float, float] | None:
    if not drawn.any():
        return None
    curves = (weighted_ecdf(entropy, weight), weighted_ecdf(entropy[drawn]))
    ground, ours = (float(x[np.searchsorted(share, 0.5 - 1e-12)]) for x, share in curves)
    return ground, ours


def _picture(entropy: np.ndarray, weight: np.ndarray, drawn: np.ndarray) -> Markup:
    low, high = float(entropy.min()), float(entropy.max())
    margin = max(0.02 * (high - low), 0.05)
    chart = Chart(
        x=(low - margin, high + margin),
        y=(0.0, 1.0),
        x_title="spectral entropy of the clear pixels, bits",
        y_title="share at or below",
        percent=True,
    )
    curves = [(weighted_ecdf(entropy, weight), "curve-b", "observable ground of the region")]
    if drawn.any():
        curves.append((weighted_ecdf(entropy[drawn]), "curve-a", "drawn units, as training sees them"))
    return chart.page(
        "Entropy of the observable ground and of the drawn units",
        [chart.steps(*_thinned(*curve), class_, said) for curve, class_, said in curves],
    )


def _thinned(x: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most _MOST_STEPS steps of a distribution function, the last one kept."""
    if x.size <= _MOST_STEPS:
        return x, share
    kept = np.unique(np.linspace(0, x.size - 1, _MOST_STEPS).astype(int))
    return x[kept], share[kept]


def _sizes(folder: Folder) -> list[tuple[str, str, str, str]]:
    response = folder.training_response
    if response is None:
        return []
    seen = response["observable"].to_numpy(zero_copy_only=False)
    lines = []
    for name, said in (
        ("entropy", "spectral entropy, bits"),
        ("duplicates", "units of the frame that look like it, itself included"),
        ("novelty", "novelty against existing data (1: nothing like it, or no data given)"),
        *([("size", "relative chance within its stratum")] if moved(folder) else []),
    ):
        values = column(response, name)
        if values is not None and np.isfinite(values[seen]).any():
            low, middle, high = (f"{value:.3g}" for value in np.nanquantile(values[seen], [0.0, 0.5, 1.0]).tolist())
            lines.append((said, low, middle, high))
    return lines


def moved(folder: Folder) -> bool:
    """Whether any observable training unit had another chance than others of its stratum and wave.

    Sizes may differ and move nothing: a simple random draw leaves them aside, and where all are taken all have π₂ = 1.
    """
    response = folder.training_response
    chances = None if response is None else column(response, "pi2_given_phase1")
    if response is None or chances is None:
        return False
    known = response["observable"].to_numpy(zero_copy_only=False) & np.isfinite(chances)
    keys = np.column_stack([wave_of(response), response["stratum"].to_numpy()])[known]
    _, group = np.unique(keys, axis=0, return_inverse=True)
    low, high = np.full(group.size, np.inf), np.full(group.size, -np.inf)
    np.minimum.at(low, group.ravel(), chances[known])
    np.maximum.at(high, group.ravel(), chances[known])
    return bool((high - low > 1e-6 * high).any())
