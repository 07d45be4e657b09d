"""Extensions: more samples, years or ground, with nothing written changed and a changed design refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geofm_model import Store
from geofm_pipeline import job
from geofm_pipeline.cli import run
from geofm_pipeline.errors import GeofmError
from geofm_pipeline.simulator import Archive, simulate
from geofm_sampling.phases import phases
from geofm_sampling.unit import ground_cells

from .conftest import job_words


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Two neighbouring tiles, two years, eight passes a year over a strip of each."""
    out = tmp_path_factory.mktemp("two") / "archive"
    return simulate(out, tiles=["32TNR", "32TPR"], years=[2022, 2023], seed=3, extent=(0, 3072, 384, 588), per_year=8)


def words(archive: Archive, out: Path, *more: str, extend: bool = False) -> list[str]:
    """A job that leaves ranks for later waves."""
    base = job_words(archive, out, "--timesteps", "1", "--samples", "24", *more)
    return [*base, "--extend"] if extend else base


def fingerprint(out: Path, wave: str = "") -> dict[str, str]:
    """sha256 of everything of a wave that must never change."""
    files = [out / f"plan{wave}.parquet", out / f"response{wave}.parquet", *(out / f"store{wave}.zarr").rglob("*")]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


@pytest.fixture(scope="module")
def grown(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A dataset after three waves (first, more samples, another year and tile), and the first wave's fingerprint."""
    out = tmp_path_factory.mktemp("grown") / "out"
    assert run(words(archive, out)) == 0
    before = fingerprint(out)
    assert run(words(archive, out, "--samples", "40", extend=True)) == 0
    assert run(words(archive, out, *_WIDER, extend=True)) == 0
    return out, before


_WIDER = ("--samples", "80", "--years", "2022-2023", "--region", "32TNR,32TPR")


def test_nothing_written_changes(grown: tuple[Path, dict[str, str]]) -> None:
    """Plan, response and store of the first wave are the same bytes after two extensions; all stores verify."""
    out, before = grown
    assert fingerprint(out) == before
    assert run(["verify", str(out)]) == 0
    sizes = [len(Store.open(out / f"store{wave}.zarr")) for wave in ("", "-0002", "-0003")]
    assert sizes == [24, 16, 40]


def test_samples_of_all_waves_stand_in_one_table(grown: tuple[Path, dict[str, str]]) -> None:
    """One row per sample in the order of waves; no unit twice; rows agree with the stores."""
    out, _ = grown
    table = pq.read_table(out / "samples.parquet")
    assert table["wave"].to_pylist() == [1] * 24 + [2] * 16 + [3] * 40
    assert np.unique(table["unit"].to_numpy()).size == 80
    for wave, name in ((1, "store.zarr"), (3, "store-0003.zarr")):
        mine = table.filter(pa.array(table["wave"].to_numpy() == wave))
        store = Store.open(out / name)
        assert [store.sample(i).unit for i in range(len(store))] == mine["unit"].to_pylist()


def test_a_further_wave_of_the_same_ground_takes_the_next_ranks(grown: tuple[Path, dict[str, str]]) -> None:
    """Wave 2 looks at no unit that wave 1 looked at."""
    out, _ = grown
    one, two = (pq.read_table(out / f"response{wave}.parquet")["unit"].to_numpy() for wave in ("", "-0002"))
    assert not np.isin(two, one).any()


def test_new_years_and_ground_are_a_new_part(grown: tuple[Path, dict[str, str]]) -> None:
    """The frame of the third wave holds no unit of the first, and no cell of it overlaps the first part's ground."""
    out, _ = grown
    first, third = (pq.read_table(sorted((out / n).glob("[0-9]*.parquet"))) for n in ("frame", "frame-0003"))
    assert not np.isin(third["unit"].to_numpy(), first["unit"].to_numpy()).any()
    assert set(third["tile"].to_pylist()) == {"32TNR", "32TPR"}
    new = ~np.isin(ground_cells(third["unit"].to_numpy()), ground_cells(first["unit"].to_numpy()))
    apart = np.abs(third["lon"].to_numpy()[new][:, None] - np.unique(first["lon"].to_numpy())[None]).min()
    assert apart > 0
    assert (out / "frame-0003" / "strata.json").read_bytes() == (out / "frame" / "strata.json").read_bytes()


def test_weights_share_parts_and_add_up(grown: tuple[Path, dict[str, str]]) -> None:
    """λ of the waves of each part sums to about 1; weights do not exceed the frame."""
    out, _ = grown
    table = pq.read_table(out / "samples.parquet")
    records = phases(table).to_pandas()
    looked = records[records["looked"] > 0]
    shares = looked.groupby(["part", "split", "stratum"])["lambda"]
    assert shares.sum()[shares.size() == 1].to_numpy() == pytest.approx(1.0, abs=0.3)
    assert shares.sum().mean() == pytest.approx(1.0, abs=0.05)
    assert set(map(tuple, records[["wave", "part"]].to_numpy().tolist())) == {(1, 1), (2, 1), (3, 3)}
    design = table.to_pandas().groupby("part")["weight_design"].sum()
    frame = records.drop_duplicates(["part", "split", "stratum"]).groupby("part")["frame"].sum()
    assert np.all((design > 0) & (design <= 1.5 * frame))


def test_the_same_extension_again_adds_nothing(grown: tuple[Path, dict[str, str]], archive: Archive) -> None:
    """A repeated command finds everything written; so does the first wave's own command, without --extend."""
    out, before = grown
    samples = (out / "samples.parquet").read_bytes()
    assert run(words(archive, out, *_WIDER, extend=True)) == 0
    assert run(words(archive, out)) == 0
    assert (out / "samples.parquet").read_bytes() == samples
    assert fingerprint(out) == before
    assert not (out / "store-0004.zarr").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--power", "1.0", "--samples", "100"), "power: 0.5 there, 1.0 now"),
        (("--seed", "9", "--samples", "100"), "seed: 0 there, 9 now"),
        (("--min-clear", "0.5", "--samples", "100"), "min_clear: 0.8 there, 0.5 now"),
    ],
)
def test_a_changed_design_is_refused_with_its_differences(
    grown: tuple[Path, dict[str, str]],
    archive: Archive,
    more: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 6, the options that differ in the message, and nothing changed."""
    out, before = grown
    assert run(words(archive, out, *_WIDER, *more, extend=True)) == 6
    assert said in capsys.readouterr().err
    assert fingerprint(out) == before
    assert run(["verify", str(out)]) == 0


def test_fewer_samples_than_there_are_is_refused(
    grown: tuple[Path, dict[str, str]], archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    """--samples counts all waves: a number that is reached already is an error, and the folder stays good."""
    out, _ = grown
    assert run(words(archive, out, *_WIDER, "--samples", "60", extend=True)) == 6
    assert "were asked for 80 together" in capsys.readouterr().err
    assert run(["verify", str(out)]) == 0


def test_there_must_be_something_to_extend(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--extend without a dataset, and without --samples, says so."""
    assert run(words(archive, tmp_path / "none", extend=True)) == 6
    assert "no finished dataset" in capsys.readouterr().err
    assert run(words(archive, tmp_path / "none", "--samples", "", extend=True)) == 2
    assert "--extend needs --samples" in capsys.readouterr().err


def test_a_wave_stopped_anywhere_continues_to_the_same_bytes(
    grown: tuple[Path, dict[str, str]], archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its plan, response, pixels and samples, an extension ends as one that was never stopped."""
    out = tmp_path / "out"
    assert run(words(archive, out)) == 0

    class StoppedError(GeofmError):
        exit_code = 4

    for stage in ("make_response", "write", "publish", "verify"):
        with monkeypatch.context() as patched:
            original = getattr(job, stage)

            def stop(*args: object, _original: object = original, _at: str = stage, **options: object) -> object:
                assert callable(_original)
                if _at in ("publish", "verify"):
                    _original(*args, **options)
                raise StoppedError("stopped on purpose")

            patched.setattr(job, stage, stop)
            assert run(words(archive, out, "--samples", "40", extend=True)) != 0
    assert run(words(archive, out, "--samples", "40", extend=True)) == 0
    grown_out, _ = grown
    assert fingerprint(out, "-0002") == fingerprint(grown_out, "-0002")
    commits = json.loads((out / "commits.json").read_text())
    assert [wave["asked"] for wave in commits["waves"]] == [24, 16]


def test_a_planned_extension_may_be_planned_anew(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run of an extension, or one that finds nothing, leaves the dataset verified and open to others."""
    out = tmp_path / "out"
    assert run(words(archive, out)) == 0
    before = fingerprint(out)
    assert run([*words(archive, out, "--samples", "60", extend=True), "--dry-run"]) == 0
    assert run(["verify", str(out)]) == 0
    assert run(words(archive, out)) == 0
    assert "everything is written already" in capsys.readouterr().err
    assert not (out / "store-0002.zarr").exists()
    years = ("--samples", "60", "--years", "2022-2023")
    assert run([*words(archive, out, *years, extend=True), "--dry-run"]) == 0
    assert (out / "frame-0002").is_dir()
    assert run(words(archive, out, "--samples", "30", "--power", "1", extend=True)) == 6
    assert run(words(archive, out, "--samples", "30", extend=True)) == 0
    assert len(Store.open(out / "store-0002.zarr")) == 6
    assert not (out / "frame-0002").exists()
    assert run(words(archive, out, "--samples", "20", extend=True)) == 6
    assert run(words(archive, out, "--samples", "30", extend=True)) == 0
    assert fingerprint(out) == before


def test_more_than_there_is_says_so(archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once every rank was looked at, more samples of the same ground are refused with the remedy."""
    out = tmp_path / "out"
    assert run(words(archive, out, "--samples", "2000")) == 0
    assert run(words(archive, out, "--samples", "3000", extend=True)) == 6
    assert "name more years or ground" in capsys.readouterr().err
    assert run(["verify", str(out)]) == 0


def test_old_ground_stays_in_new_years(archive: Archive, tmp_path: Path) -> None:
    """With a neighbour in the catalogue and another year, every cell of the first part is there in the new year too."""
    out = tmp_path / "out"
    assert run(words(archive, out)) == 0
    assert (
        run(words(archive, out, "--samples", "60", "--region", "32TNR,32TPR", "--years", "2022-2023", extend=True)) == 0
    )
    first, second = (pq.read_table(sorted((out / n).glob("[0-9]*.parquet"))) for n in ("frame", "frame-0002"))
    later = second.filter(pa.array(second["year"].to_numpy() == 2023))
    old, new = (set(ground_cells(t["unit"].to_numpy()).tolist()) for t in (first, later))
    assert old <= new


def test_samples_changed_by_hand_stop_an_extension(archive: Archive, tmp_path: Path) -> None:
    """A samples.parquet that is not what was written is refused, not carried on."""
    out = tmp_path / "out"
    assert run(words(archive, out)) == 0
    table = pq.read_table(out / "samples.parquet")
    at = table.schema.get_field_index("entropy")
    pq.write_table(table.set_column(at, "entropy", pa.array(np.full(24, 9.0, np.float32))), out / "samples.parquet")
    assert run(words(archive, out, "--samples", "30", extend=True)) == 6


def test_a_lost_table_of_samples_is_noticed(archive: Archive, tmp_path: Path) -> None:
    """Made again from the first wave alone it is not called good, until the later waves' commands are repeated."""
    out = tmp_path / "out"
    assert run(words(archive, out)) == 0
    assert run(words(archive, out, "--samples", "30", extend=True)) == 0
    whole = (out / "samples.parquet").read_bytes()
    (out / "samples.parquet").unlink()
    assert run(words(archive, out)) == 6
    assert run(["verify", str(out)]) == 6
    assert run(words(archive, out, "--samples", "30", extend=True)) == 0
    assert (out / "samples.parquet").read_bytes() == whole
    assert run(["verify", str(out)]) == 0


def test_a_dataset_made_by_budget_can_be_extended(archive: Archive, tmp_path: Path) -> None:
    """The budget only set the number of samples; an extension names a larger one."""
    out = tmp_path / "out"
    small = words(archive, out, "--samples", "", "--budget", "60MB")
    assert run(small) == 0
    drawn = pq.read_metadata(out / "samples.parquet").num_rows
    assert run(words(archive, out, "--samples", str(drawn + 5), extend=True)) == 0
    assert pq.read_metadata(out / "samples.parquet").num_rows == drawn + 5
