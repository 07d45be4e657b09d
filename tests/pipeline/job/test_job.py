"""The main job end to end on a simulated archive."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from geofm_model import Store
from geofm_pipeline.cli import run
from geofm_pipeline.simulator import Archive
from geofm_sampling.phases import phases
from geofm_sampling.tables import FRAME, PLAN, RESPONSE

from .conftest import job_words


@pytest.fixture(scope="module")
def dataset(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the small job."""
    out = tmp_path_factory.mktemp("job") / "out"
    assert run(job_words(archive, out)) == 0
    return out


def dataset_bytes(out: Path) -> dict[str, bytes]:
    """Plan, response, samples and every file of the store by name: all that must not depend on how a run went."""
    store = [p for p in sorted((out / "store.zarr").rglob("*")) if p.is_file()]
    tables = [out / f"{name}.parquet" for name in ("plan", "response", "samples")]
    return {str(p.relative_to(out)): p.read_bytes() for p in (*tables, *store)}


def test_the_folder_holds_what_the_contract_says(dataset: Path) -> None:
    """Every table keeps its contract, the store verifies, card and report are there."""
    parts = [str(p) for p in sorted((dataset / "frame").glob("*.parquet"))]
    assert FRAME.check(pq.read_table(parts)).num_rows > 100
    assert PLAN.check(pq.read_table(dataset / "plan.parquet")).num_rows > 100
    response = RESPONSE.check(pq.read_table(dataset / "response.parquet"))
    samples = pq.read_table(dataset / "samples.parquet")
    assert run(["verify", str(dataset)]) == 0
    assert len(Store.open(dataset / "store.zarr")) == samples.num_rows == 40
    assert response.filter(np.asarray(response["shard"]) >= 0).num_rows == 40
    assert (dataset / "report.html").stat().st_size > 10_000
    assert json.loads((dataset / "card.json").read_text())["verify"]["ok"] is True


def test_samples_agree_with_the_store(dataset: Path) -> None:
    """Units, dates and places of samples.parquet are those of the store, row by row."""
    samples, store = pq.read_table(dataset / "samples.parquet").to_pylist(), Store.open(dataset / "store.zarr")
    for index, row in enumerate(samples):
        sample = store.sample(index)
        assert (row["index"], row["shard"] * 64 + row["row"]) == (index, index)
        assert sample.unit == row["unit"]
        assert sample.date.tolist() == row["dates"]
        assert (sample.lon, sample.lat) == (row["lon"], row["lat"])
        assert sample.valid().mean(axis=(1, 2)) == pytest.approx(row["valid"], abs=1e-6)


def test_every_date_is_clear_enough_and_keeps_its_distance(dataset: Path) -> None:
    """Chosen dates reach min_clear on the pixels as written, ascend, and keep the gaps; all lie in the years."""
    for row in pq.read_table(dataset / "samples.parquet").to_pylist():
        gaps = np.diff(row["dates"])
        assert min(row["valid"]) >= 0.8
        assert np.all((gaps >= 10) & (gaps <= 180))
        assert all(np.datetime64(day, "D").astype(str).startswith("2022") for day in row["dates"])


def test_weights_recover_the_frame(dataset: Path) -> None:
    """Full weights estimate the units of each stratum that a scene shows, design weights the observable ones.

    Sizes differ, so a sum is right on average and not each time; over all strata it is within a tenth.
    """
    table = pq.read_table(dataset / "samples.parquet")
    records = phases(table).to_pandas().query("drawn > 0")
    for weight, kind in (("weight_full", "seen"), ("weight_design", "observable")):
        known = (records["frame"] * records[kind] / records["looked"]).sum()
        assert table[weight].to_numpy().sum() == pytest.approx(known, rel=0.1)


def test_a_second_run_and_another_folder_give_the_same_bytes(archive: Archive, tmp_path: Path) -> None:
    """Plan, response and store do not depend on when and how often the job ran."""
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two, one):
        assert run(job_words(archive, out, "--profile", "local", "--group-shards", "1")) == 0
    assert dataset_bytes(one) == dataset_bytes(two)


def test_a_dry_run_reads_no_raster_and_is_continued(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run stops after the plan, says what the run needs, and the run continues from its plan."""
    out = tmp_path / "out"
    hidden = archive.root.with_name("hidden")
    granules = [p for p in archive.root.iterdir() if p.is_dir() and p.name.startswith("HLS")]
    hidden.mkdir()
    try:
        for granule in granules:
            granule.rename(hidden / granule.name)
        assert run([*job_words(archive, out), "--dry-run"]) == 0
    finally:
        for granule in granules:
            (hidden / granule.name).rename(granule)
        hidden.rmdir()
    assert "block requests" in capsys.readouterr().err
    assert not (out / "store.zarr").exists()
    plan = (out / "plan.parquet").read_bytes()
    assert run(job_words(archive, out)) == 0
    assert (out / "plan.parquet").read_bytes() == plan


def test_without_land_cover_and_weather_the_design_keeps_what_remains(archive: Archive, tmp_path: Path) -> None:
    """Strata are then seasons only, and the card says so."""
    out = tmp_path / "out"
    assert run(job_words(archive, out, "--land-cover", "", "--weather", "")) == 0
    card = json.loads((out / "card.json").read_text())
    assert {row["name"] for row in card["plan"]["strata"]} <= {f"all/s{season}" for season in range(4)}
    assert any("No land cover" in sentence for sentence in card["said"])
    assert any("No weather" in sentence for sentence in card["said"])


def test_the_log_holds_every_run(dataset: Path) -> None:
    """run.jsonl has start, stages with seconds, what was said, and the end, in order of time."""
    events = [json.loads(line) for line in (dataset / "run.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert [e["text"] for e in events if e["event"] == "stage"] == ["search", "plan", "respond", "write", "verify"]
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)


def test_tables_explain_themselves(dataset: Path) -> None:
    """Every column of samples.parquet carries a sentence on its meaning and unit; GeoPandas opens it as places."""
    import geopandas

    schema = pq.read_schema(dataset / "samples.parquet")
    assert all(field.metadata[b"meaning"] for field in schema)
    places = geopandas.read_parquet(dataset / "samples.parquet")
    assert places.crs == "OGC:CRS84"
    assert places.geometry.is_valid.all()
    assert shapely.contains_xy(places.geometry.to_numpy(), places["lon"], places["lat"]).all()
