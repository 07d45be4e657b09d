"""Make samplics.json: a stratified sample and what samplics 0.6 says of it.

    python -m venv V && V/bin/pip install samplics==0.6.0 && V/bin/python make_golden.py

The test compares with the file, so that samplics (no longer maintained) need not be installed.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")
from samplics import PopParam, SampleWeight, TaylorEstimator  # noqa: E402 - it warns as it is imported


def main() -> None:
    """Write the file beside this script."""
    rng = np.random.default_rng(11)
    frame, taken = np.array([120, 300, 45]), np.array([12, 18, 10])
    stratum = np.repeat(np.arange(3), taken)
    n = stratum.size
    y, x = rng.normal(stratum + 5, 1.5), rng.uniform(1, 4, n)
    weight = (frame / taken)[stratum]
    kind, side = rng.choice(["dry", "wet"], n), rng.choice(["east", "west"], n)
    fpc = {h: 1 - taken[h] / frame[h] for h in range(3)}
    found: dict[str, object] = {}
    for name, param, other in (
        ("mean", PopParam.mean, None),
        ("total", PopParam.total, None),
        ("ratio", PopParam.ratio, x),
    ):
        for domain in (None, kind):
            result = TaylorEstimator(param)
            result.estimate(y=y, x=other, samp_weight=weight, stratum=stratum, domain=domain, fpc=fpc)
            found[name if domain is None else f"{name} by kind"] = {
                "estimate": plain(result.point_est),
                "error": plain(result.stderror),
            }
    totals = {"kind": share(kind, weight, rng), "side": share(side, weight, rng)}
    raked = SampleWeight().rake(
        weight, margins={"kind": kind, "side": side}, control=totals, tol=1e-13, ctrl_tol=1e-13, max_iter=5_000
    )
    found["kish"] = float(SampleWeight().calculate_deff_weight(raked))
    values = {
        **{"frame": frame.tolist(), "taken": taken.tolist(), "stratum": stratum.tolist()},
        **{"y": y.tolist(), "x": x.tolist(), "kind": kind.tolist(), "side": side.tolist()},
        **{"totals": totals, "raked": raked.tolist(), "found": found},
    }
    Path(__file__).with_name("samplics.json").write_text(json.dumps(values, indent=1) + "\n")


def share(labels: np.ndarray, weight: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Totals of two labels, a little off those of the sample, with the same sum."""
    first, second = sorted(set(labels.tolist()))
    part = float(np.clip(weight[labels == first].sum() / weight.sum() + rng.uniform(-0.08, 0.08), 0.2, 0.8))
    return {first: part * float(weight.sum()), second: (1 - part) * float(weight.sum())}


def plain(value: object) -> object:
    """Numbers and dictionaries of numbers as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return float(np.asarray(value).ravel()[0])


if __name__ == "__main__":
    main()
