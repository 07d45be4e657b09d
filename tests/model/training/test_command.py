"""`geofm-train` as users meet it: recipes, options in order, errors with a remedy, stopping and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from geofm_model.cli import run as command
from geofm_model.models import SIZES, DecoderConfig
from geofm_model.option_names import OptionError
from geofm_model.options import parse_pretraining, recipes
from geofm_model.training.checkpoints import open_checkpoint
from geofm_model.training.pretrain import pretrain
from geofm_model.training.settings import Pretraining

from .conftest import MakeRun

NEEDED = ("--data.store=S", "--out=RUN")


def written(run: Pretraining, folder: Path) -> str:
    """The settings as a YAML file."""
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(run)))))
    return str(path)


@pytest.mark.parametrize(
    ("recipe", "size"),
    [("nano", "nano"), ("tiny", "tiny"), ("100m", "100M"), ("300m", "300M"), ("600m", "600M")],
)
def test_recipes_are_the_sizes_of_the_family(recipe: str, size: str) -> None:
    """Each reads without a change; metadata are on in the larger ones, as in Prithvi's TL variants."""
    found = parse_pretraining(["--config", f"mae_{recipe}.yaml", *NEEDED])
    encoder = found.model.encoder
    wanted = SIZES[size]
    for name in ("width", "depth", "heads", "patching", "mlp_ratio", "eps"):
        assert getattr(encoder, name) == getattr(wanted, name)
    assert (found.model.decoder == DecoderConfig()) is (recipe != "nano")
    assert len(recipes()) == 5


def test_later_options_win_and_earlier_ones_are_refused() -> None:
    """What stands before --config would be changed in silence."""
    found = parse_pretraining(["--config", "mae_nano.yaml", *NEEDED, "--optimizer.rate=0.25", "--task.ratio", "0.6"])
    assert (found.optimizer.rate, found.task.ratio) == (0.25, 0.6)
    for early in (["--optimizer.rate=0.25"], ["--optimizer.rate", "0.25"]):
        with pytest.raises(OptionError, match=r"--optimizer.rate.* stands before --config"):
            parse_pretraining([*early, "--config", "mae_nano.yaml", *NEEDED])
    with pytest.raises(OptionError, match="stands before --config"):
        parse_pretraining(["--config", "mae_tiny.yaml", "--seed=1", "--config=mae_nano.yaml", *NEEDED])


def test_a_printed_configuration_is_one_that_can_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--print_config of a recipe with changes, read again, is the same run."""
    words = ["--config", "mae_nano.yaml", *NEEDED, "--model.average=0.99", "--data.shares=[1,2]"]
    with pytest.raises(SystemExit):
        parse_pretraining([*words, "--print_config"])
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert parse_pretraining(["--config", str(path)]) == parse_pretraining(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "mae_giant.yaml"], "no recipe: recipes are mae_100m.yaml"),
        (["--config="], "--config names no file"),
        (["--config", "mae_nano.yaml", "--out=R"], "--data.store is missing: text or a list of texts is expected"),
        (["--config", "mae_nano.yaml", *NEEDED, "--data.store=T"], "--data.store is given twice"),
        (["--config", "mae_nano.yaml", *NEEDED, "--model.encoder.heads=5"], "multiple of 16 and of its heads"),
        (["--config", "mae_nano.yaml", *NEEDED, "--model.encoder.patching.size=0"], "a patch needs pixels"),
        (["--config", "mae_nano.yaml", *NEEDED, "--model.decoder.depth=-2"], "the decoder needs a depth"),
        (["--config", "mae_nano.yaml", *NEEDED, "--model.encoder.eps=-1"], "eps must be above 0"),
        (["--config", "mae_nano.yaml", *NEEDED, "--optimizer.betas=[0.9,1.5]"], "optimizer.betas must be two numbers"),
        (["--config", "mae_nano.yaml", *NEEDED, f"--seed={10**22}"], "seed must be from 0"),
        (["--config", "mae_nano.yaml", *NEEDED, "--data.batch_size=0"], "data.batch_size must be at least 1, got 0"),
        (
            ["--config", "mae_nano.yaml", *NEEDED, "--optimizer.clip=0"],
            "optimizer.clip must be above 0, or null, got 0",
        ),
        (["--config", "mae_nano.yaml", *NEEDED, "--optimizer.rate=.nan"], "optimizer.rate must be above 0, got nan"),
        (["--config", "mae_nano.yaml", *NEEDED, "--task.dates=0"], "task.dates must be at least 1, got 0"),
        (["--config", "mae_nano.yaml", *NEEDED, "--watch.keep=-1"], "watch.keep must be at least 1, or 0 for all"),
    ],
)
def test_a_slip_is_named(words: list[str], message: str) -> None:
    """Exit code 2, one line, no traceback."""
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_pretraining(words)


def test_the_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """On stderr, with exit code 2; stdout stays empty."""
    assert command(["pretrain", "--config", "mae_nano.yaml", "--data.store=/nowhere", f"--out={tmp_path / 'r'}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("geofm-train: ")
    assert "/nowhere" in said.err
    assert command(["train"]) == 2
    assert "choose pretrain" in capsys.readouterr().err
    assert command(["--help"]) == 0
    assert "pretrain" in capsys.readouterr().out


def test_without_a_word_there_is_help_and_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, with exit code 2; what is asked for goes to stdout, with 0."""
    for words in ([], ["pretrain"], ["export"]):
        assert command(words) == 2
        said = capsys.readouterr()
        assert (said.out, said.err[:18]) == ("", "usage: geofm-train")
        assert command([*words, "--help"]) == 0
        said = capsys.readouterr()
        assert (said.out[:18], said.err) == ("usage: geofm-train", "")


@pytest.mark.parametrize(
    ("command_of", "environment", "start"),
    [
        ("export", {"RANK": "1", "WORLD_SIZE": "2"}, "geofm-train: /nowhere"),
        ("pretrain --seed=x", {"RANK": "0", "WORLD_SIZE": "2"}, "geofm-train: --seed=x"),
        ("pretrain --seed=x", {"RANK": "1", "WORLD_SIZE": "2"}, "geofm-train: process 1: --seed=x"),
        ("pretrain", {"RANK": "1", "WORLD_SIZE": "1"}, "geofm-train: the environment has RANK=1, WORLD_SIZE=1"),
        ("pretrain", {"RANK": "x", "WORLD_SIZE": "2"}, "geofm-train: the environment has RANK=x"),
    ],
)
def test_an_error_of_one_process_has_its_number(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command_of: str,
    environment: dict[str, str],
    start: str,
) -> None:
    """Process 0 speaks at once, as do commands that work alone; others wait, since they are ended where all have it."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = ["--network=/nowhere", "--out=x"] if command_of == "export" else ["--config=mae_nano.yaml", *NEEDED]
    assert command([*command_of.split(), *words]) == 2
    assert capsys.readouterr().err.startswith(start)
    assert waited == ([10.0] if "process 1" in start else [])


def test_a_run_can_be_drawn_and_exported(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, look at a sample, draw the curves, export for others: each command says where its result is."""
    run = make_run(watch={"pictures": 6, "validate": 6}, model={"average": 0.9})
    assert command(["pretrain", "--config", written(run, tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == run.out
    drawn = sorted(path.name for path in (Path(run.out) / "pictures").iterdir())
    assert drawn == ["step-00000006.png", "step-00000012.png"]
    picture, curves, exported = (str(tmp_path / name) for name in ("one.png", "curves.png", "exported"))
    samples = f"--samples=[{','.join(str(at) for at in (0, 3))}]"
    words = [f"--network={run.out}", f"--store={run.data.store}", samples, f"--out={picture}", "--ratio=0.5"]
    assert command(["reconstruct", *words]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"sample (\d+): loss \d", said) == ["0", "3"]
    assert command(["curves", f"--runs=[{run.out}]", f"--out={curves}"]) == 0
    for path in (picture, curves):
        with Image.open(path) as image:
            assert min(image.size) > 100
    assert command(["export", f"--network={run.out}", f"--out={exported}"]) == 0
    again = [f"--network={exported}", f"--store={run.data.store}", samples, f"--out={picture}", "--ratio=0.5"]
    capsys.readouterr()
    assert command(["reconstruct", *again]) == 0
    assert capsys.readouterr().out == said
    assert command(["export", f"--network={run.out}", f"--out={exported}"]) == 2  # there is something already


def test_an_exported_encoder_goes_on_to_other_forms(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From our folder to Prithvi's file and back, bit by bit; what needs a decoder says that there is none."""
    run = make_run(steps=1)
    pretrain(run)
    ours, theirs, back = (str(tmp_path / name) for name in ("ours", "theirs", "back"))
    assert command(["export", f"--network={run.out}", f"--out={ours}", "--part=encoder"]) == 0
    assert command(["export", f"--network={ours}", f"--out={theirs}", "--format=prithvi"]) == 0
    assert command(["export", f"--network={theirs}/model.pt", f"--out={back}", "--part=encoder"]) == 0
    state = torch.load(f"{theirs}/model.pt", weights_only=True)
    assert all(name.startswith("encoder.") for name in state)
    first, last = (load_file(f"{folder}/model.safetensors") for folder in (ours, back))
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)
    capsys.readouterr()
    for network in (ours, theirs):
        words = [f"--network={network}", f"--store={run.data.store}", "--samples=[0]", f"--out={tmp_path / 'x.png'}"]
        assert command(["reconstruct", *words]) == 2
        assert f"{network} has an encoder alone, which predicts nothing" in capsys.readouterr().err


def test_wrong_words_of_other_commands(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, a sample that is not there, weights that were not kept: exit code 2 and the reason."""
    run = make_run()
    command(["pretrain", "--config", written(run, tmp_path)])
    base = ["reconstruct", f"--store={run.data.store}", f"--out={tmp_path / 'x.png'}"]
    for words, message in (
        ([*base, f"--network={tmp_path / 'none'}", "--samples=[0]"], "holds no checkpoint"),
        ([*base, f"--network={run.out}", "--samples=[99]"], "sample 99"),
        ([*base, f"--network={run.out}", "--samples=[0]", "--weights=average"], "has no average"),
    ):
        capsys.readouterr()
        assert command(words) == 2
        assert message in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_run_at_the_end_of_a_step(
    make_run: MakeRun, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """With a checkpoint, a status and an exit code that says by which signal."""
    run = make_run(steps=100_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "geofm_model", "pretrain", "--config", written(run, tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore SIGINT, and their children after them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        log = Path(run.out) / "log.jsonl"
        if log.exists() and log.read_text().count('"train"') > 5:
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "the same command goes on from here" in said
    status = json.loads((Path(run.out) / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", open_checkpoint(run.out).step)
