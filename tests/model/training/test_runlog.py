"""The log of a run holds every step once, whatever happened to the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geofm_model.training.progress import Progress, duration
from geofm_model.training.runlog import RunLog, read_log


def test_repeated_steps_are_read_once(tmp_path: Path) -> None:
    """A resumed run says the steps after its checkpoint again; the later ones count."""
    log = RunLog(tmp_path)
    log.write("start", 0, {})
    for step in (1, 2, 3):
        log.write("train", step, {"loss": float(step)})
    log.close()
    log = RunLog(tmp_path)
    log.write("resume", 1, {})
    log.write("train", 2, {"loss": 20.0})
    log.close()
    assert [(e["step"], e["loss"]) for e in read_log(tmp_path, "train")] == [(1, 1.0), (2, 20.0)]
    assert [e["event"] for e in read_log(tmp_path)] == ["start", "train", "resume", "train"]


def test_a_run_that_began_again_forgets_its_first_attempt(tmp_path: Path) -> None:
    """It was killed before a checkpoint: all its steps are taken again."""
    log = RunLog(tmp_path)
    for _ in range(2):
        log.write("start", 0, {})
        log.write("train", 1, {})
    log.close()
    assert [e["event"] for e in read_log(tmp_path)] == ["start", "train"]
    with pytest.raises(ValueError, match="give the folder of a run"):
        read_log(tmp_path / "none")


def test_a_line_cut_by_a_kill_is_no_harm(tmp_path: Path) -> None:
    """It is left out, and what follows begins a line of its own."""
    log = RunLog(tmp_path)
    log.write("train", 1, {"loss": 1.0})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "train", "ste')
    log = RunLog(tmp_path)
    log.write("resume", 1, {})
    log.write("train", 2, {"loss": 2.0})
    log.close()
    assert [e["step"] for e in read_log(tmp_path, "train")] == [1, 2]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    """Every line is JSON for every reader."""
    log = RunLog(tmp_path)
    log.write("train", 1, {"loss": float("nan"), "parts": {"a": [float("inf"), 1]}})
    log.close()
    text = (tmp_path / "log.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text)["parts"] == {"a": [None, 1]}


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    """Where it is installed; else the error says what to do."""
    pytest.importorskip("tensorboard", reason="the package tensorboard is optional")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, tensorboard=True)
    log.write("train", 3, {"loss": 0.5, "name": "word"})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.5)]


class Terminal:
    """A stream that remembers, and may be a terminal."""

    def __init__(self, live: bool) -> None:
        self.live, self.text = live, ""

    def isatty(self) -> bool:
        return self.live

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_a_pipe_gets_whole_lines_now_and_then() -> None:
    """One per interval, unless it must be said."""
    stream, now = Terminal(live=False), [0.0]
    progress = Progress(stream, clock=lambda: now[0], interval=10)  # type: ignore[arg-type]
    for second in range(25):
        now[0] = float(second)
        progress.status(f"at {second}")
    progress.status("end", always=True)
    assert stream.text == "at 0\nat 10\nat 20\nend\n"


def test_a_terminal_gets_one_line_that_is_rewritten() -> None:
    """And messages on lines of their own."""
    stream = Terminal(live=True)
    progress = Progress(stream, clock=iter(range(9)).__next__)  # type: ignore[arg-type]
    progress.status("one")
    progress.status("two")
    progress.say("message")
    assert stream.text == "\r\x1b[2Kone\r\x1b[2Ktwo\nmessage\n"


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")])
def test_durations(seconds: float, text: str) -> None:
    """As people say them."""
    assert duration(seconds) == text
