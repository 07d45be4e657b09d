"""Options of the design, end to end: held-out ground, budget, strata of one's own, raked weights, joint dates."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from shapely.geometry import box

from geofm_model import Store
from geofm_pipeline.cli import run
from geofm_pipeline.simulator import Archive
from geofm_sampling.phases import phases
from geofm_sampling.plan import plan_record

from .conftest import job_words


@pytest.fixture(scope="module")
def held(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with held-out blocks of 4 km and buffers of 0.5 km."""
    out = tmp_path_factory.mktemp("held") / "out"
    words = ("--heldout", "0.3", "--block-km", "4", "--buffer-km", "0.5", "--heldout-samples", "12", "--samples", "20")
    assert run(job_words(archive, out, *words)) == 0
    return out


def test_held_out_chips_lie_apart_from_training_chips(held: Path) -> None:
    """Both splits are written; their footprints are at least the buffer apart on the ground."""
    samples = pq.read_table(held / "samples.parquet")
    split = samples["split"].to_numpy()
    assert (split == 1).sum() >= 5
    assert (split == 0).sum() >= 10
    ground = gpd.GeoSeries(shapely.from_wkb(samples["geometry"].to_pylist()), crs=4326).to_crs(32632).to_numpy()
    apart = shapely.distance(ground[split == 0][:, None], ground[split == 1][None])
    assert apart.min() >= 500


def test_the_store_knows_the_split(held: Path) -> None:
    """The store's split is that of samples.parquet, and statistics stand for each split."""
    store, samples = Store.open(held / "store.zarr"), pq.read_table(held / "samples.parquet")
    assert store.column("split").tolist() == samples["split"].to_pylist()
    assert set(store.statistics) >= {"train", "heldout"} or len(store.statistics) >= 2


def test_held_out_probabilities_are_those_of_their_blocks(held: Path) -> None:
    """π₁ of a held-out sample is p_b · k / N; its frame row has the block's probability."""
    samples = pq.read_table(held / "samples.parquet")
    frame = pq.read_table(sorted((held / "frame").glob("[0-9]*.parquet")))
    records = {(r["split"], r["stratum"]): r for r in phases(samples).to_pylist()}
    at = np.searchsorted(frame["unit"].to_numpy(), samples["unit"].to_numpy())
    for row, place in zip(samples.to_pylist(), at.tolist(), strict=True):
        chance = frame["p_heldout" if row["split"] else "p_eligible"][place].as_py()
        group = records[row["split"], row["stratum"]]
        assert row["pi1"] == pytest.approx(chance * group["looked"] / group["frame"], rel=1e-12)
        assert frame["split"][place].as_py() == row["split"]


def test_the_blocks_are_kept(held: Path) -> None:
    """frame/blocks.parquet lists every block with its chance and fate; a changed one is found."""
    blocks = pq.read_table(held / "frame" / "blocks.parquet")
    assert {"block", "p", "heldout"} <= set(blocks.column_names)
    assert 0 < blocks["heldout"].to_pylist().count(True) < blocks.num_rows
    original = (held / "frame" / "blocks.parquet").read_bytes()
    pq.write_table(blocks.slice(1), held / "frame" / "blocks.parquet")
    assert run(["verify", str(held)]) == 6
    (held / "frame" / "blocks.parquet").write_bytes(original)
    assert run(["verify", str(held)]) == 0


def test_a_small_region_holds_nothing_out_by_itself(archive: Archive, tmp_path: Path) -> None:
    """Without the option a region of few blocks has no held-out ground."""
    assert run([*job_words(archive, tmp_path / "out"), "--dry-run"]) == 0
    assert plan_record(pq.read_table(tmp_path / "out" / "plan.parquet")).design.heldout == 0


def test_too_much_held_out_is_refused(archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One block that is all the region: held out, nothing is left, and the message says what to change."""
    for seed in range(12):
        words = job_words(archive, tmp_path / f"out{seed}", "--heldout", "0.5", "--seed", str(seed))
        code = run([*words, "--dry-run"])
        if code:
            break
    assert code == 2
    assert "no training cell is left" in capsys.readouterr().err


def test_a_budget_decides_the_number_of_samples(archive: Archive, tmp_path: Path) -> None:
    """The plan has as many samples as fit: the projection stays within the budget, and is not far below it."""
    words = job_words(archive, tmp_path / "out", "--samples", "", "--budget", "80MB", "--information", "false")
    assert run([*words, "--dry-run"]) == 0
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    most = max(card["projection"]["read_bytes"], card["projection"]["write_bytes"])
    samples = plan_record(pq.read_table(tmp_path / "out" / "plan.parquet")).design.samples
    assert 1 < samples < 100
    assert 0.7 * 80e6 < most <= 80e6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget", "1GB"), "exclude each other"),
        (("--samples", "", "--budget", "1KB"), "too small for a single sample"),
        (("--samples", "", "--budget", "lots"), "is not a size"),
        (("--rake", "colour"), "is none of"),
        (("--trim", "0.5"), "at least 1"),
        (("--heldout", "0.9"), "0 to 0.5"),
        (("--strata", "land_cover,soil"), "FILE:ATTRIBUTE"),
        (("--existing", "/nowhere"), "no dataset folder"),
        (("--draw", "lottery"), "draw"),
    ],
)
def test_impossible_options_are_refused(
    archive: Archive, tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 (6 for a folder) and the value, rule or remedy in the message."""
    assert run(job_words(archive, tmp_path / "out", *words)) in (2, 6)
    assert said in capsys.readouterr().err


def test_a_vector_layer_makes_strata(archive: Archive, tmp_path: Path) -> None:
    """FILE:ATTRIBUTE adds the layer's classes to the strata, and the frame keeps them."""
    layer = tmp_path / "zones.geojson"
    zones = gpd.GeoDataFrame({"Zone": ["west", "east"]}, geometry=[box(8, 40, 9.1, 50), box(9.1, 40, 12, 50)], crs=4326)
    zones.to_file(layer)
    words = job_words(archive, tmp_path / "out", "--strata", f"{layer}:Zone,land_cover")
    assert run([*words, "--dry-run"]) == 0
    strata = json.loads((tmp_path / "out" / "frame" / "strata.json").read_text())
    assert strata["factors"] == ["by_zone", "land_cover"]
    frame = pq.read_table(sorted((tmp_path / "out" / "frame").glob("[0-9]*.parquet")))
    assert set(frame["by_zone"].to_pylist()) <= {"west", "east", "none"}


def test_raked_weights_reach_the_margins(archive: Archive, tmp_path: Path) -> None:
    """`weight` adds up to the phase-1 totals of each season; `weight_design` stays as the design has it."""
    assert run(job_words(archive, tmp_path / "out", "--rake", "season", "--trim", "4")) == 0
    samples = pq.read_table(tmp_path / "out" / "samples.parquet").to_pandas()
    response = pq.read_table(tmp_path / "out" / "response.parquet").to_pandas()
    seen = response[response["observable"]]
    known = (1 / seen["pi1"]).groupby(seen["unit"].astype(np.uint64) & np.uint64(3)).sum()
    assert samples.groupby("season")["weight"].sum().to_numpy() == pytest.approx(known.to_numpy(), rel=1e-5)
    assert (samples["weight"] != samples["weight_design"]).any()


def test_joint_dates_open_fewer_granules(archive: Archive, tmp_path: Path) -> None:
    """The same units with joint dates use fewer granules."""
    used = {}
    for joint in (False, True):
        out = tmp_path / str(joint)
        assert run([*job_words(archive, out, "--timesteps", "1"), *(["--joint-dates"] if joint else [])]) == 0
        table = pq.read_table(out / "samples.parquet", columns=["unit", "granules"])
        used[joint] = (table["unit"].to_pylist(), {g for row in table["granules"].to_pylist() for g in row})
    assert sorted(used[False][0]) == sorted(used[True][0])
    assert len(used[True][1]) < len(used[False][1])


def test_existing_data_makes_units_less_novel(archive: Archive, tmp_path: Path) -> None:
    """With a dataset of the same ground given, every measured unit has a novelty below 1."""
    assert run(job_words(archive, tmp_path / "a")) == 0
    assert run(job_words(archive, tmp_path / "b", "--seed", "7", "--existing", str(tmp_path / "a"))) == 0
    table = pq.read_table(tmp_path / "b" / "response.parquet")
    measured = np.array([len(d) > 0 for d in table["descriptor"].to_pylist()])
    assert measured.any()
    novelty = table["novelty"].to_numpy()
    assert novelty[measured].min() < 0.6
    assert novelty[measured].mean() < 0.9
    assert np.all(novelty > 0)


def test_information_is_measured_and_kept(archive: Archive, tmp_path: Path) -> None:
    """Observable units have an entropy and a size; `--information false` reads no overview and sizes are equal."""
    assert run(job_words(archive, tmp_path / "out")) == 0
    table = pq.read_table(tmp_path / "out" / "response.parquet")
    seen = table["observable"].to_numpy(zero_copy_only=False)
    assert np.isfinite(table["entropy"].to_numpy()[seen]).mean() > 0.9
    assert np.unique(table["size"].to_numpy()[seen]).size > 5
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["information"]["units_read"] >= seen.sum() * 0.9
    assert run(job_words(archive, tmp_path / "plain", "--information", "false")) == 0
    plain = pq.read_table(tmp_path / "plain" / "response.parquet")
    assert not (tmp_path / "plain" / "information").exists()
    assert set(plain["size"].to_pylist()) <= {0.0, 1.0}


def test_columns_of_the_response_explain_themselves(archive: Archive, tmp_path: Path) -> None:
    """A sentence stands on every column of samples.parquet."""
    assert run(job_words(archive, tmp_path / "out")) == 0
    schema: pa.Schema = pq.read_schema(tmp_path / "out" / "samples.parquet")
    assert all(b"meaning" in (field.metadata or {}) for field in schema)


def test_proportional_is_by_size_alone(archive: Archive, tmp_path: Path) -> None:
    """Equal and proportional allocation take no account of what units show; power and Neyman do."""
    counts = {}
    for allocation in ("proportional", "neyman"):
        out = tmp_path / allocation
        words = ("--allocation", allocation, "--timesteps", "1", "--floor", "0", "--strata", "land_cover,season")
        assert run(job_words(archive, out, *words)) == 0
        records = phases(pq.read_table(out / "samples.parquet"))
        counts[allocation] = (records["drawn"].to_numpy(), plan_record(pq.read_table(out / "plan.parquet")))
    drawn, record = counts["proportional"]
    target = record.target[record.frame_units > 0]
    assert np.all((drawn == target) | (drawn < target) | (target < record.target.sum()))
    assert not np.array_equal(drawn, counts["neyman"][0])


def test_estimates_on_the_command_line(held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A covariate's mean with its interval, by domain; a list column and an unknown one are refused."""
    assert run(["estimate", str(held), "lc_40", "--by", "season"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["domain", "samples", "clusters"]
    assert len(lines) > 3
    assert run(["estimate", str(held), "entropy", "--by", "unit"]) == 0
    assert "fewer than two samples" in capsys.readouterr().out
    assert run(["estimate", str(held), "entropy", "--by", "dates"]) == 2
    assert run(["estimate", str(held), "colour"]) == 2
    assert run(["estimate", str(held), "area_km2", "--kind", "total", "--population", "full", "--split", "1"]) == 0


@pytest.mark.parametrize("flag", ["joint_dates", "extend", "dry_run", "cost_aware"])
def test_only_true_and_false_are_booleans_in_yaml(
    tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`no` and `maybe` in YAML are texts and switch nothing on."""
    for word in ("no", "maybe"):
        (tmp_path / "run.yaml").write_text(f"region: demo\nyears: 2022\n{flag}: {word}\n")
        assert run(["--config", str(tmp_path / "run.yaml")]) == 2
        assert "must be true or false" in capsys.readouterr().err
