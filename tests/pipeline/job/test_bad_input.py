"""Bad input: each a one-paragraph message with value, rule and remedy, its exit code, and nothing lost."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import xarray as xr

from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.cli import run
from geofm_pipeline.region import parse_region
from geofm_pipeline.scenes import scene_refs
from geofm_pipeline.simulator import Archive
from geofm_pipeline.years import parse_years

from .conftest import job_words
from .test_job import dataset_bytes


@pytest.mark.parametrize(
    ("change", "code", "fragment"),
    [
        (("--region", "10,50,20,40"), 2, "south 50 not below north 40"),
        (("--region", "32TAA"), 2, "32TAA"),
        (("--region", "absent.geojson"), 2, "absent.geojson does not exist"),
        (("--region", "-60,-10,-50,0"), 3, "-60"),
        (("--years", "2015"), 3, "2022"),
        (("--years", "2023-2021"), 2, "2023-2021"),
        (("--catalog", "absent.json"), 2, "absent.json"),
        (("--catalog", "http://[x/items.json"), 2, "is no address: its host or port cannot be"),
        (("--catalog", " "), 2, "--catalog is empty"),
        (("--land-cover", "absent.tif"), 2, "absent.tif"),
        (("--weather", "absent.nc"), 2, "absent.nc"),
        (("--land-cover", "worldcovr", "--catalog", "absent.json"), 2, "did you mean --land-cover worldcover?"),
        (("--weather", "era5", "--catalog", "absent.json"), 2, "terraclimate, arco-era5, era5-land, none"),
        (("--min-clear", "1", "--timesteps", "9"), 3, "none of the"),
        (("--max-bytes", "1 kB"), 7, "more than --max-bytes 1 kB"),
        (("--chip-size", "100"), 2, "one of (64, 128, 256)"),
        (("--timesteps", "65"), 2, "--timesteps 65"),
        (("--max-gap", "100000"), 2, "--max-gap 100000"),
        (("--out", "/dev/null/out"), 2, "lies below a file"),
        (("--out", "/sys/geofm-out"), 7, "cannot write"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(
    archive: Archive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, ...],
    code: int,
    fragment: str,
) -> None:
    """One paragraph, the documented exit code, no traceback."""
    assert run(job_words(archive, tmp_path / "out", *change)) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("geofm-sample: ")
    assert fragment in last


def test_an_item_with_an_address_that_cannot_be_names_its_granule(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run stops, since the catalogue is wrong and not the file; no traceback."""
    text = archive.items.read_text().replace('"./HLS', f'"{archive.root}/HLS')
    first = text[text.index(f'"{archive.root}/HLS') :].partition('"')[2].partition('"')[0]
    items = tmp_path / "items.json"
    items.write_text(text.replace(first.rpartition("/")[0], "http://[zz"))
    assert run(job_words(archive, tmp_path / "out", "--catalog", str(items))) == 4
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "HLS." in last
    assert "the address is malformed" in last


def test_another_plan_in_the_folder_is_refused(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of another seed is left as it is, and the message names the option."""
    out = tmp_path / "out"
    assert run(job_words(archive, out)) == 0
    before = dataset_bytes(out)
    assert run(job_words(archive, out, "--seed", "1")) == 6
    assert "seed: 0 there, 1 now" in capsys.readouterr().err
    assert dataset_bytes(out) == before


def test_a_store_of_a_newer_schema_is_refused(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dataset of a later version says so, to the main job and to verify."""
    out = tmp_path / "out"
    assert run(job_words(archive, out)) == 0
    commits = out / "commits.json"
    commits.write_text(json.dumps({**json.loads(commits.read_text()), "schema": 99}))
    assert run(job_words(archive, out)) == 6
    assert run(["verify", str(out)]) == 6
    assert "schema 99" in capsys.readouterr().err


def test_a_scheduler_that_is_not_there(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is named; what the search found is kept."""
    monkeypatch.setattr("geofm_pipeline.cluster.CONNECT_SECONDS", 1)
    out = tmp_path / "out"
    assert run(job_words(archive, out, "--workers", "", "--scheduler", "tcp://127.0.0.1:9")) == 8
    assert "tcp://127.0.0.1:9" in capsys.readouterr().err
    assert (out / "scenes.parquet").exists()


def _used_granule(archive: Archive, tmp_path: Path) -> str:
    """A granule that the undisturbed job uses."""
    assert run(job_words(archive, tmp_path / "first")) == 0
    samples = pq.read_table(tmp_path / "first" / "samples.parquet").to_pylist()
    return str(samples[0]["granules"][0])


@pytest.mark.parametrize("damage", ["truncated", "html", "missing"])
def test_a_band_that_cannot_be_read_leaves_tombstones(own_archive: Archive, tmp_path: Path, damage: str) -> None:
    """A truncated COG, an HTML page, a lost file: the other chips are written, these are named with the cause."""
    granule = _used_granule(own_archive, tmp_path)
    file = next((own_archive.root / granule).glob("*.B04.tif"))
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:20_000] if damage == "truncated" else b"<!DOCTYPE html><html>Log in</html>")
    out = tmp_path / "out"
    assert run(job_words(own_archive, out)) == 0
    samples = pq.read_table(out / "samples.parquet").to_pylist()
    hit = [row for row in samples if granule in row["granules"]]
    card = json.loads((out / "card.json").read_text())
    assert hit
    assert {row["index"] for row in hit} == {row["index"] for row in samples if row["split"] == -1}
    assert all(granule in row["state"] and "B04" in row["state"] for row in hit)
    assert all(row["weight"] == 0 for row in hit)
    assert all(row["state"] == "written" and row["weight"] > 0 for row in samples if row not in hit)
    assert len(card["store"]["tombstones"]) == len(hit)
    assert run(["verify", str(out)]) == 0


@pytest.mark.parametrize("stage", ["screening", "writing"])
def test_an_archive_that_went_away_is_not_sealed_as_tombstones(
    own_archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    """When most files are gone the run stops with exit code 4; once they are back the same command finishes."""
    out, clean = tmp_path / "out", tmp_path / "clean"
    assert run(job_words(own_archive, clean)) == 0
    if stage == "writing":
        assert run(job_words(own_archive, out)) == 0
        for name in ("store.zarr", "work", "samples.parquet"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / "samples.parquet").unlink()
    granules = sorted(own_archive.root.glob("HLS.*"))
    (tmp_path / "away").mkdir()
    for granule in granules:
        granule.rename(tmp_path / "away" / granule.name)
    capsys.readouterr()
    assert run(job_words(own_archive, out)) == 4
    assert "is the archive of this catalogue there and readable?" in capsys.readouterr().err
    assert run(job_words(own_archive, out)) == 4
    for granule in granules:
        (tmp_path / "away" / granule.name).rename(granule)
    assert run(job_words(own_archive, out)) == 0
    assert dataset_bytes(out) == dataset_bytes(clean)


def test_a_finished_dataset_needs_no_work_folder(archive: Archive, tmp_path: Path) -> None:
    """Without work/ the same command verifies and reports; a lost shard is named, removing the store repairs it."""
    out = tmp_path / "out"
    assert run(job_words(archive, out)) == 0
    before = dataset_bytes(out)
    shutil.rmtree(out / "work")
    assert run(job_words(archive, out)) == 0
    next((out / "store.zarr" / "image").glob("c*")).unlink()
    assert run(job_words(archive, out)) == 5
    shutil.rmtree(out / "store.zarr")
    assert run(job_words(archive, out)) == 0
    assert dataset_bytes(out) == before


@pytest.mark.parametrize("name", ["frame/strata.json", "frame", "samples.parquet", "plan.parquet", "scenes.parquet"])
def test_verify_finds_a_table_that_was_removed(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Every committed table and the frame belong to what verify checks."""
    out = tmp_path / "out"
    assert run(job_words(archive, out)) == 0
    path = out / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(["verify", str(out)]) == 6
    assert "restore it" in capsys.readouterr().err


def test_samples_are_made_again(archive: Archive, tmp_path: Path) -> None:
    """samples.parquet may be lost or edited: the same command writes it again, byte for byte."""
    out = tmp_path / "out"
    assert run(job_words(archive, out)) == 0
    before = dataset_bytes(out)
    (out / "samples.parquet").write_bytes(b"edited")
    assert run(job_words(archive, out)) == 0
    assert dataset_bytes(out) == before


def test_weather_in_the_wrong_unit_is_refused(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kelvin called °C gives temperatures that no place has: an input error, not a climate."""
    with xr.open_dataset(archive.weather, engine="h5netcdf") as weather:
        wrong = weather.load()
    wrong["tas"] = (wrong["tas"] + 273.15).assign_attrs(wrong["tas"].attrs)
    wrong.to_netcdf(tmp_path / "wrong.nc", engine="h5netcdf")
    assert run(job_words(archive, tmp_path / "out", "--weather", str(tmp_path / "wrong.nc"))) == 2
    assert "which no place on Earth has" in capsys.readouterr().err


def test_what_narrows_the_frame_is_said(archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells without land cover and years without granules are said on the terminal and counted in the card."""
    out = tmp_path / "out"
    assert run(job_words(archive, out, "--years", "2022-2023")) == 0
    errors = capsys.readouterr().err
    frame = json.loads((out / "card.json").read_text())["frame"]
    assert "No granule was found in 2023" in errors
    assert f"{frame['out_of_frame_cells']:,} of 3,249 cells have no land cover at all in the map" in errors
    assert frame["cells"] + frame["out_of_frame_cells"] == 3249


def test_a_dry_run_says_what_would_be_refused(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run judges --max-bytes too, without failing."""
    assert run([*job_words(archive, tmp_path / "out", "--max-bytes", "1 kB"), "--dry-run"]) == 0
    assert "would be refused" in capsys.readouterr().err


def test_equal_years_are_the_same_plan(archive: Archive, tmp_path: Path) -> None:
    """`[2022]` in a file and `2022` on the command line continue each other."""
    file = tmp_path / "run.yaml"
    file.write_text("years: [2022]\n")
    out = tmp_path / "out"
    assert run(job_words(archive, out)) == 0
    assert run(["--config", str(file), *job_words(archive, out, "--years", "")]) == 0


def test_simulate_takes_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three catalogues of an archive made under a relative name lead to the same granules."""
    monkeypatch.chdir(tmp_path)
    words = "--tiles 32TNR --years 2022 --per-year 2 --extent 256,1280,256,256"
    assert run(["simulate", "made", *words.split()]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]
    region, years = parse_region("32TNR"), parse_years(2022)
    tables = [find_scenes(f"made/{name}", region, years) for name in ("items.json", "catalog.json", "items.parquet")]
    assert tables[0].num_rows == 2
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert all(Path(ref.fmask).is_file() for table in tables for ref in scene_refs(table))


@pytest.mark.parametrize(
    "words", [["--tiles", "32TXX1", "--years", "2022"], ["--tiles", "60KZF,01KAB", "--years", "2022"]]
)
def test_simulate_refuses_what_it_cannot_make(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong tile, or tiles on both sides of the antimeridian, are refused before anything is made."""
    assert run(["simulate", str(tmp_path / "made"), *words, "--extent", "1000,2600,256,256", "--per-year", "1"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("geofm-sample: ")


def test_an_fmask_with_impossible_codes_is_refused_and_said(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interpolated Fmask counts as not seen; the run goes on without the granule and says so."""
    from geofm_pipeline.simulator import simulate

    out = tmp_path_factory.mktemp("faulty") / "archive"
    faulty = simulate(
        out,
        tiles=["32TNR"],
        years=[2022],
        seed=3,
        extent=(0, 1280, 512, 512),
        per_year=12,
        faults=["impossible_fmask"],
    )
    assert run(job_words(faulty, tmp_path / "out")) == 0
    assert "interpolated" in capsys.readouterr().err
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert len(card["screening"]["refused"]) >= 1


def test_a_full_disk_loses_nothing_and_a_second_run_continues(archive: Archive, tmp_path: Path) -> None:
    """No file may grow beyond a limit (the kernel's EFBIG): exit code 7 with the remedy, then the same store."""
    out, clean = tmp_path / "out", tmp_path / "clean"
    program = "import sys; from geofm_pipeline.cli import run; sys.exit(run(sys.argv[1:]))"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    process = subprocess.run(
        [sys.executable, "-c", program, *job_words(archive, out)], capture_output=True, preexec_fn=limit, check=False
    )
    assert process.returncode == 7, process.stderr.decode()
    assert "free space" in process.stderr.decode()
    assert run(job_words(archive, out)) == 0
    assert run(job_words(archive, clean)) == 0
    assert dataset_bytes(out) == dataset_bytes(clean)


def test_two_runs_in_one_folder_at_once(archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused and names the first."""
    from geofm_pipeline.store import writer_lock

    out = tmp_path / "out"
    with writer_lock(out):
        assert run(job_words(archive, out)) == 6
    assert "is being written by process" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["verify"], ["verify", "absent"], ["report", "absent"], ["simulate"]])
def test_other_commands_name_what_is_missing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command without its folder says so."""
    assert run(words) in (2, 6)
    assert capsys.readouterr().err.startswith("geofm-sample: ")
