"""The options of the main job, from the command line and from YAML."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from geofm_pipeline.cli import run
from geofm_pipeline.config import SampleConfig, parse_bytes
from geofm_pipeline.errors import InputError
from geofm_pipeline.options import parse_options
from geofm_pipeline.stages.designing import design_of
from geofm_pipeline.years import Years


def test_a_box_with_negative_west_needs_no_equals_sign() -> None:
    """`--region -10,40,5,50` is a region, not an option."""
    assert parse_options(["--region", "-10,40,5,50", "--years", "2019-2021"]).region == "-10,40,5,50"
    assert parse_options(["--region", "-.5,40,5,50", "--years", "2019"]).region == "-.5,40,5,50"


@pytest.mark.parametrize(
    ("yaml", "field", "value"),
    [
        ("region: NO\nyears: 2022", "region", "NO"),
        ("region: no\nyears: 2022", "region", "no"),
        ("region: on\nyears: 2022", "region", "on"),
        ("region: Kenya\nyears: 2022", "years", 2022),
        ("region: Kenya\nyears: [2019, 2021]", "years", [2019, 2021]),
        ("region: Kenya\nyears: 2019-2021", "years", "2019-2021"),
        ("region: Kenya\nyears: 2019,2021", "years", "2019,2021"),
        ("region: Kenya\nyears: 2022\ndry_run: true", "dry_run", True),
        ("region: Kenya\nyears: 2022\nmin_clear: 0.5", "min_clear", 0.5),
        ("region: 12:30:45\nyears: 2022", "region", "12:30:45"),
    ],
)
def test_yaml_means_what_it_says(tmp_path: Path, yaml: str, field: str, value: object) -> None:
    """YAML values keep their meaning: NO is Norway, years may be a number, a list or a range."""
    file = tmp_path / "run.yaml"
    file.write_text(yaml)
    assert getattr(parse_options(["--config", str(file)]), field) == value


def test_options_after_the_file_win(tmp_path: Path) -> None:
    """An option behind --config replaces the file's value."""
    file = tmp_path / "run.yaml"
    file.write_text("region: Kenya\nyears: 2022\nsamples: 5\n")
    assert parse_options(["--config", str(file), "--samples", "7"]).samples == 7


def test_defaults_are_the_documented_ones() -> None:
    """The defaults that README and docs name."""
    config = parse_options(["--region", "demo", "--years", "2022"])
    design = design_of(config, Years(years=(2022,)))
    assert (design.samples, design.timesteps, design.min_gap, design.max_gap) == (1024, 4, 10, 180)
    assert (config.chip_size, config.min_clear, config.heldout, config.dry_run) == (256, 0.8, None, False)
    assert (design.power, design.floor, design.information, design.draw) == (0.5, 10, True, "local")


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--samples", "0"], "--samples 0 must be at least 1"),
        (["--samples", "x"], "--samples must be a whole number, got x"),
        (["--min-clear", "most"], "--min-clear must be a number, got most"),
        (["--chip-size", "224"], "one of (64, 128, 256)"),
        (["--min-gap", "20", "--max-gap", "10"], "1 ≤ min ≤ max"),
        (["--min-clear", "1.5"], "--min-clear 1.5"),
        (["--heldout", "0.7"], "0 to 0.5"),
        (["--heldout", "much"], "--heldout must be a number, got much"),
        (["--draw", "lottery"], "--draw must be one of local, pivotal, systematic, random, pareto, got lottery"),
        (["--workers", "2", "--scheduler", "tcp://a:1"], "exclude each other"),
        (["--max-bytes", "lots"], "--max-bytes 'lots'"),
        (["--smaples", "3"], "--smaples"),
        (["--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_a_wrong_option_names_value_and_rule(words: list[str], fragment: str) -> None:
    """Each wrong option is an InputError that names it."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        parse_options(["--region", "demo", "--years", "2022", *words])


def test_a_missing_option_is_named() -> None:
    """Region and years are required."""
    with pytest.raises(InputError, match="region"):
        parse_options(["--years", "2022"])


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    """A misspelt key never passes silently."""
    file = tmp_path / "run.yaml"
    file.write_text("regin: Kenya\nyears: 2022\n")
    with pytest.raises(InputError, match="regin"):
        parse_options(["--config", str(file)])


def test_only_the_design_enters_the_digest() -> None:
    """Workers, folder and dry run do not make another plan; seed and samples do."""
    config = SampleConfig(region="demo", years=2022)
    for change in ({"workers": 3}, {"out": Path("x")}, {"dry_run": True}, {"max_bytes": "1GB"}):
        assert dataclasses.replace(config, **change).digest() == config.digest()
    for change in ({"seed": 1}, {"samples": 5}, {"region": "demo2"}, {"profile": "local"}):
        assert dataclasses.replace(config, **change).digest() != config.digest()


def test_every_option_has_a_help_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows each option with its sentence and exits with 0."""
    with pytest.raises(SystemExit) as stop:
        parse_options(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(SampleConfig):
        assert "--" + field.name.replace("_", "-") in text
    assert "Dates per chip" in text


def test_without_a_word_nothing_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that has lost its options must not go on as if there were data: the help on stderr, exit code 2."""
    assert run([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "--region" in told.err


@pytest.mark.parametrize(
    ("text", "count"), [("200GB", 200 * 10**9), ("1.5 TiB", 3 * 2**39), ("1000", 1000), ("7 kB", 7000)]
)
def test_sizes_are_read_in_both_unit_systems(text: str, count: int) -> None:
    """GB is decimal, GiB binary."""
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("map.tif", "{here}/map.tif"),
        ("wc/*_Map.tif", "{here}/wc/*_Map.tif"),
        ("/data/map.tif", "/data/map.tif"),
        ("https://host/map.tif", "https://host/map.tif"),
        ("s3://bucket/map.zarr", "s3://bucket/map.zarr"),
        ("~/map.tif", "{home}/map.tif"),
    ],
)
def test_local_sources_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, wanted: str) -> None:
    """A relative path means the file seen from where the run was started; addresses stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = parse_options(["--region", "demo", "--years", "2022", "--land-cover", text, "--weather", f"t.nc,{text}"])
    assert config.land_cover == wanted.format(here=tmp_path, home=tmp_path / "home")
    assert config.weather == f"{tmp_path}/t.nc,{config.land_cover}"


def test_a_layer_of_the_strata_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FILE:ATTRIBUTE names the file seen from here; factors stay as they are."""
    monkeypatch.chdir(tmp_path)
    config = parse_options(["--region", "demo", "--years", "2022", "--strata", "eco.json:BIOME, season"])
    assert config.strata == f"{tmp_path}/eco.json:BIOME,season"
