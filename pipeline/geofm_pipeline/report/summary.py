"""The diagnostics as plain values for card.json, the same figures that the page shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from geofm_pipeline.report.claims import claims
from geofm_pipeline.report.diagnosis import Diagnosis, diagnose
from geofm_pipeline.report.evenness import LEAST_SAMPLES
from geofm_pipeline.report.folder import Folder, read_folder
from geofm_pipeline.report.heldout import heldout_panel
from geofm_pipeline.report.information import information_panel
from geofm_pipeline.report.precision import Average
from geofm_pipeline.report.selfcheck import misses_within
from geofm_pipeline.report.tradeoff import nearest
from geofm_sampling.balance import Balance
from geofm_sampling.diagnostics import binomial_limits
from geofm_sampling.selftest import Check


def diagnostics(root: Path) -> dict[str, object]:
    """Every diagnostic of a dataset folder as JSON values; a part whose stage has not run is None.

    Reads the folder only; costs what the diagnostics of :func:`geofm_pipeline.report.render_report` cost, some seconds.
    """
    folder = read_folder(root)
    found = diagnose(folder)
    return {
        "strata": found.strata,
        "effective_strata": _number(found.effective),
        "deff_weights": _number(found.kish),
        "averages": [_average(row) for row in found.averages or ()],
        "observable_share": _pair(found.observable, ("estimate", "standard_error")),
        "voronoi": {"looked": _balance(found.looked_balance), "chips": _balance(found.chip_balance)},
        "energy_distance": _likeness(found),
        "self_test": _selftest(found),
        "q_frontier": _frontier(found),
        "near_duplicates": {
            "drawn": _pair(found.duplicates, ("share", "units")),
            "observable": _pair(found.duplicates_before, ("share", "units")),
        },
        "entropy_median": _entropy(folder, found),
        "cell_repeats": {str(times): cells for times, cells in found.repeats.items()},
        "heldout": _heldout(folder),
        "claims": [vars(claim) for claim in claims(folder, found)],
    }


def _average(row: Average) -> dict[str, object]:
    return {name: _number(value) if isinstance(value, float) else value for name, value in vars(row).items()}


def _number(value: float | None) -> float | None:
    """Six significant digits; what is no finite number becomes None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _pair(values: Sequence[float] | None, names: Sequence[str]) -> dict[str, float | None] | None:
    return None if values is None else {name: _number(value) for name, value in zip(names, values, strict=True)}


def _balance(balance: Balance | None) -> dict[str, object] | None:
    if balance is None or balance.samples < LEAST_SAMPLES:
        return None
    return {
        "ratio_to_random": _number(balance.ratio),
        "share_of_redraws_as_even": _number(balance.rank),
        "redraws": int(balance.redraws.size),
        "units": balance.samples,
        "strata": balance.groups,
        "strata_not_measured": balance.skipped,
        "frame_subsampled": balance.subsampled,
    }


def _likeness(found: Diagnosis) -> dict[str, object] | None:
    likeness = found.likeness
    if likeness is None:
        return None
    random = ("simple random", float(likeness.random_frame.mean()), float(likeness.random_target.mean()))
    lines = {
        name: {"to_frame": _number(frame), "to_target": _number(target)}
        for name, frame, target in [*likeness.lines, random]
    }
    return {"covariates": likeness.covariates, "subsampled": likeness.cut, **lines}


def _selftest(found: Diagnosis) -> dict[str, object] | None:
    test = found.selftest
    if test is None:
        return None
    phases = {"phase1": _phase(test.looked), "phase2": _phase(test.drawn)}
    return {"share_of_frame": _number(test.share), **phases}


def _phase(checks: Sequence[Check]) -> dict[str, object]:
    return {
        "variables": len(checks),
        "misses": sum(check.misses for check in checks),
        "misses_usual_up_to": binomial_limits(len(checks))[1],
        "as_usual": misses_within(checks),
        "z": {check.name: _number(check.z) for check in checks},
    }


def _frontier(found: Diagnosis) -> dict[str, object] | None:
    if found.tradeoff is None:
        return None
    points = [{name: _number(value) for name, value in vars(point).items()} for point in found.tradeoff.points]
    return {
        "power": found.tradeoff.power,
        "allocation": found.tradeoff.allocation,
        "samples": found.tradeoff.samples,
        "chosen": {name: _number(value) for name, value in vars(nearest(found.tradeoff)).items()},
        "points": points,
    }


def _entropy(folder: Folder, found: Diagnosis) -> dict[str, float | None] | None:
    panel = information_panel(folder, found)
    return None if panel is None else _pair(panel.medians, ("observable_ground", "drawn"))


def _heldout(folder: Folder) -> dict[str, object] | None:
    panel = heldout_panel(folder)
    if panel is None:
        return None
    return {
        "blocks": panel.blocks,
        "held_out": panel.held,
        "block_km": panel.block_km,
        "buffer_km": panel.buffer_km,
        "chips": panel.chips,
        "nearest_km": _number(panel.nearest_km),
        "not_estimable": list(panel.missing),
    }
