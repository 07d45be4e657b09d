"""A plan at real scale: 9,391 real granules of the conterminous United States, March to September 2022."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from planning_conus import CONUS, YEARS, write_catalog

from geofm_pipeline.cli import run


@pytest.mark.heavy
def test_a_country_is_planned_without_reading_a_raster(shared_data: Path, tmp_path: Path) -> None:
    """The dry run frames all 450 tiles with land cover and weather, draws the exact totals, and reads no granule.

    By default a tenth of the blocks is held out for a tenth of the samples; a group without enough units looks at all.
    """
    catalog = write_catalog(shared_data, tmp_path / "items.json")
    weather = ",".join(str(shared_data / "weather" / f"{name}.mon.ltm.nc") for name in ("air", "precip"))
    cover = str(shared_data / "maps" / "glcnmo2008_cover20_0.333deg.tif")
    out = tmp_path / "out"
    words = ["--region", CONUS, "--years", YEARS, "--catalog", catalog, "--land-cover", cover, "--weather", weather]
    assert run([*words, "--out", str(out), "--dry-run"]) == 0
    card = json.loads((out / "card.json").read_text())
    plan = pq.read_table(out / "plan.parquet")
    assert card["search"]["granules"] == 9391
    assert len(card["search"]["tiles"]) == 450
    assert card["frame"]["coverage"]["once"] > 0.97
    assert card["frame"]["coverage"]["twice"] < 0.01
    looked = np.bincount(np.asarray(plan["split"]), weights=np.asarray(plan["first_look"]))
    samples = [sum(row["n"] for row in card["plan"]["strata"] if row["split"] == split) for split in (0, 1)]
    assert samples == [1024, 102]
    assert looked[0] == 2048
    assert 102 <= looked[1] <= 204
    assert card["projection"]["granules_to_screen"] <= 9391
    assert not (out / "screening").exists()
