"""The GPU benchmark of pre-training, rehearsed on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pretrain_gpu
import pretrain_gpu_measures
import pytest
import torch
from pretrain_gpu_contenders import SIZES, Case, Size
from pretrain_gpu_measures import PHASES, Effort, race

from geofm_model.models import DecoderConfig

SCRIPT = Path(str(pretrain_gpu.__file__))
SMALL = ("--device", "cpu", "--sizes", "nano", "--samples", "24", "--rounds", "1", "--seconds", "0.01")


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    pretrain_gpu.main()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Size:
    """What goes as nano here; on one thread, since tests run side by side."""
    torch.set_num_threads(1)
    encoder = replace(SIZES["nano"].encoder, width=48, depth=1)
    found = replace(SIZES["nano"], encoder=encoder, decoder=DecoderConfig(width=32, depth=1, heads=2), view=32, chip=36)
    monkeypatch.setitem(SIZES, "nano", found)
    return found


@pytest.mark.usefixtures("small")
def test_lines_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line per cell; those that are there, also behind a torn line, are not measured again; a table of all."""
    out = tmp_path / "lines.jsonl"
    words = (*SMALL, "--modes", "eager", "--contenders", "ours", "reference", "--out", str(out), "--kinds")
    called(monkeypatch, *words, "machine", "feed")
    first = out.read_text()
    out.write_text(first + '{"kind": "step", "cel\n')
    called(monkeypatch, *words, "machine", "feed", "step")
    assert out.read_text().startswith(first)
    lines: dict[str, dict[str, Any]] = {line["cell"]: line for line in pretrain_gpu.read(out)}
    steps = [f"step nano eager {batch} {who}" for batch in (2, 4) for who in ("ours", "reference")]
    assert set(lines) == {"machine", "feed nano eager", *steps}
    assert len(out.read_text().splitlines()) == len(lines) + 1
    assert not [line for line in lines.values() if "error" in line]
    assert lines["step nano eager 4 ours"]["beside"] == ["reference"]
    for name in steps:
        line = lines[name]
        assert line["samples_per_second"] == pytest.approx(line["batch"] / line["seconds"])
        done = line["samples_per_second"] * SIZES["nano"].flops / 1e12
        assert line["mfu_matmul"] == pytest.approx(done / line["matmul_tflops"])
        assert tuple(line.get("phases", PHASES)) == PHASES
    assert lines["feed nano eager"]["data_wait"] < 1
    capsys.readouterr()
    called(monkeypatch, "--table", str(out))
    told = capsys.readouterr().out
    assert all(f"| nano | eager | {batch} | {who} |" in told for batch in (2, 4) for who in ("ours", "reference"))


class Hungry:
    """A contender that takes memory of which there are two pieces."""

    taken = 0

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        Hungry.taken += pieces
        if Hungry.taken > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a piece")

    def __del__(self) -> None:
        Hungry.taken -= self.pieces

    def step(self) -> None:
        """See Contender."""

    def loss(self) -> float:
        """See Contender."""
        return 1.0


def broken(_: Case) -> Hungry:
    raise ImportError("no such package")


def test_who_finds_no_memory_beside_others_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones leave first; whoever has too little alone says so, and other errors stay with their contender."""
    contenders = {
        "first": lambda _: Hungry(1),
        "broken": broken,
        "second": lambda _: Hungry(1),
        "third": lambda _: Hungry(2),
        "giant": lambda _: Hungry(3),
    }
    monkeypatch.setattr(pretrain_gpu_measures, "CONTENDERS", contenders)
    case = Case(size=SIZES["nano"], batch=2, compiled=False, device=torch.device("cpu"), store=tmp_path)
    found = race(list(contenders), case, Effort(rounds=2, seconds=1e-9))
    assert found["giant"] == {"error": "out of memory"}
    assert found["broken"]["error"] == "ImportError: no such package"
    assert {name: found[name]["beside"] for name in ("first", "second", "third")} == {
        "first": ["broken", "second"],
        "second": ["first", "broken"],
        "third": [],
    }
    assert Hungry.taken == 0


def test_more_than_was_too_much_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Size) -> None:
    """A batch for which memory was short says it for all larger ones of that contender."""

    def short(names: list[str], case: Case, effort: Effort) -> dict[str, dict[str, object]]:
        assert case.batch == 2
        return {name: {"error": "out of memory"} for name in names}

    monkeypatch.setattr(pretrain_gpu, "race", short)
    monkeypatch.setitem(SIZES, "nano", replace(small, usual=2))
    out = tmp_path / "lines.jsonl"
    words = (*SMALL, "--modes", "eager", "--contenders", "ours", "--kinds", "step", "--out", str(out))
    for _ in range(2):
        called(monkeypatch, *words, "--again")
        assert [(line["batch"], line["error"]) for line in pretrain_gpu.read(out)] == [
            (2, "out of memory"),
            (4, "out of memory at batch 2"),
        ]
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.heavy
def test_everything_on_a_cpu(tmp_path: Path) -> None:
    """All kinds of cells, compiled ones too, in a process of its own as on a GPU: no errors, every check is right."""
    out = tmp_path / "lines.jsonl"
    fresh = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "programs"), "OMP_NUM_THREADS": "1"}
    words = (*SMALL, "--batches", "4", "--contenders", "ours", "reference", "--minutes", "20", "--out", str(out))
    done = subprocess.run([sys.executable, str(SCRIPT), *words], env=fresh, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "nothing is left"
    lines = pretrain_gpu.read(out)
    assert not [line for line in lines if "error" in line]
    checks = {line["cell"]: line["ok"] for line in lines if line["kind"] == "check"}
    names = ("loader", "preparation", "steps", "useless", "resume", "compiled")
    assert checks == {f"check {name}": True for name in names}
    assert {line["kind"] for line in lines} == set(pretrain_gpu.KINDS)
    assert {line["mode"] for line in lines if line["kind"] == "step"} == {"compiled", "eager"}
