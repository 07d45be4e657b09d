"""Taylor estimates, raking and Kish's design effect against golden numbers of samplics (made by make_golden.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from geofm_sampling.calibration import Margin, rake
from geofm_sampling.estimation import estimate, phases_metadata

GOLDEN = json.loads(Path(__file__).with_name("samplics.json").read_text())


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """The golden sample: three strata looked at and observable as a whole, a simple random sample of each."""
    stratum, frame, taken = (np.array(GOLDEN[name]) for name in ("stratum", "frame", "taken"))
    n = stratum.size
    raked = np.array(GOLDEN["raked"])
    columns = {
        "wave": np.ones(n, np.int16),
        "split": np.zeros(n, np.int8),
        "stratum": stratum.astype(np.int32),
        "unit": np.arange(n, dtype=np.uint64) << np.uint64(10),
        "lon": np.arange(n) * 0.1,
        "lat": np.zeros(n),
        "pi1": np.ones(n),
        "weight_design": (frame / taken)[stratum],
        "weight": raked,
        **{name: pa.array(GOLDEN[name]) for name in ("y", "x", "kind")},
    }
    counts = [
        {**dict.fromkeys(("frame", "looked", "observable"), size), **dict.fromkeys(("drawn", "written"), k)}
        | {"wave": 1, "split": 0, "stratum": h}
        for h, (size, k) in enumerate(zip(GOLDEN["frame"], GOLDEN["taken"], strict=True))
    ]
    return pa.table(columns).replace_schema_metadata(phases_metadata(pa.Table.from_pylist(counts)))


@pytest.mark.parametrize("by", [None, "kind"])
@pytest.mark.parametrize("kind", ["mean", "total", "ratio"])
def test_estimates_as_taylor_estimator(table: pa.Table, kind: str, by: str | None) -> None:
    """Estimates and standard errors of a stratified sample, whole and by domain, equal samplics' to 1e-9."""
    found = GOLDEN["found"][kind if by is None else f"{kind} by {by}"]
    rows = estimate(
        table,
        "y",
        by=by,
        kind=kind,  # type: ignore[arg-type]
        denominator="x" if kind == "ratio" else None,
        local=False,
    ).to_pylist()
    for row in rows:
        want = {name: values if by is None else values[row["domain"]] for name, values in found.items()}
        assert row["estimate"] == pytest.approx(want["estimate"], rel=1e-9)
        assert row["standard_error"] == pytest.approx(want["error"], rel=1e-9)


def test_raking_and_kish_as_sample_weight(table: pa.Table) -> None:
    """Raked weights and Kish's design effect of them equal samplics'."""
    margins = [Margin(name=n, labels=np.array(GOLDEN[n]), totals=GOLDEN["totals"][n]) for n in ("kind", "side")]
    ours = rake(table["weight_design"].to_numpy(), margins, bounds=(0.0, 1e6), tolerance=1e-12).weights
    assert ours == pytest.approx(GOLDEN["raked"], rel=1e-8)
    row = estimate(table, "y", weight="weight").to_pylist()[0]
    assert row["deff_weights"] == pytest.approx(GOLDEN["found"]["kish"])
