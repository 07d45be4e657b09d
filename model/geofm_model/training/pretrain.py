"""Masked pre-training: the loop over steps, and what happens beside it.

A run is a pure function of its settings and its data: weights, order, views and masks come from the seed, and a
checkpoint holds the rest. On equal threads and processes a resumed run is bit-equal to one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import numpy as np

from geofm_model.errors import StoreError
from geofm_model.loading import Batch
from geofm_model.models import seen_count, step_flops
from geofm_model.training.assembly import grid_of, loader_of, network_of, preparation_of, schedule_of
from geofm_model.training.checkpoints import Checkpoint, CheckpointError, latest_checkpoint, write_checkpoint
from geofm_model.training.distributed import Ranks
from geofm_model.training.heldout import has_split
from geofm_model.training.learner import Learner, Pending, StepResult
from geofm_model.training.pixel_statistics import pixel_statistics
from geofm_model.training.progress import Progress, duration
from geofm_model.training.record import (
    Tally,
    design_digest,
    device_name,
    from_record,
    record_of,
    surroundings,
    versions,
)
from geofm_model.training.runfolder import RunFolder, State
from geofm_model.training.runlog import RunLog, read_log
from geofm_model.training.schedules import peak_rate
from geofm_model.training.settings import Pretraining, differences, flat, shown
from geofm_model.training.stopping import Stop, StoppedError
from geofm_model.training.throughput import Pace, Stopwatch, peak_flops
from geofm_model.training.watching import Probe, Watcher, watchers_of

Outcome = Literal["finished", "interrupted"]


class TrainingError(RuntimeError):
    """A run cannot go on; the message says from where it can be taken up."""


def pretrain(
    run: Pretraining,
    *,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    probes: Sequence[Probe] = (),
) -> Outcome:
    """Train, or go on with a run that was stopped; everything is in `run.out` afterwards.

    Parameters
    ----------
    ranks : this process among those that train together, which have joined already; None is alone
    progress : where to talk
    stop : to ask for an early end
    probes : further looks at the encoder, every `watch.probe` steps; their numbers go to the log

    Raises
    ------
    StoreError
        When the data cannot be read or are not what the run was begun with.
    ValueError
        When settings do not fit the data, each other, or the run that is continued.
    TrainingError
        When no step gives a finite gradient any more.
    """
    ranks = ranks or Ranks()
    folder = RunFolder(run.out)
    with folder.held() if ranks.main else nullcontext():
        try:
            trainer = Trainer(run, ranks=ranks, progress=progress or Progress(None), stop=stop or Stop(), folder=folder)
            trainer.take_up()
            watchers = watchers_of(trainer.learner, trainer.loader, folder, probes, trainer.note)
            owed = trainer.owed(watchers)
            if trainer.done >= trainer.steps and not owed:
                trainer.say(f"{run.out} is finished: {trainer.steps:,} steps were done; nothing to do")
                return "finished"
            with trainer.logging():
                return trainer.fit(watchers, owed)
        except BaseException as error:
            # A command that does not fit the run says nothing about the run.
            if ranks.main and (isinstance(error, StoreError) or not isinstance(error, ValueError)):
                state: State = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                folder.write_failure(state, f"{type(error).__name__}: {error}")
            raise


class Trainer:
    """A run under way."""

    def __init__(self, run: Pretraining, *, ranks: Ranks, progress: Progress, stop: Stop, folder: RunFolder) -> None:
        self.settings, self.ranks, self.folder = run, ranks, folder
        self.progress = progress if ranks.main else Progress(None)
        device = ranks.device(run.device)
        self.loader = loader_of(run, ranks, device)
        self.statistics = pixel_statistics(self.loader.members, run.data.shares)
        preparation = preparation_of(run, self.statistics, device)
        self.learner = Learner(network_of(run).to(device), preparation, run, ranks, stop)
        self.steps = run.step_count(len(self.loader.members))
        self.schedule = schedule_of(run, self.steps)
        self.tally, self.done = Tally(), 0
        self._log: RunLog | None = None
        self._notes: list[str] = []
        self._gradient = float("nan")

    def say(self, message: str) -> None:
        """Tell the user, once for all ranks."""
        self.progress.say(message)

    def note(self, message: str) -> None:
        """Tell the user once something is going to be done."""
        self._notes.append(message)

    def take_up(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        found = latest_checkpoint(self.folder.checkpoints)
        mark = 0 if found is None else int(str(found.record["sha256"])[:12], 16)
        if not self.ranks.agree([0 if found is None else found.step + 1, mark], self.learner.device):
            raise CheckpointError(
                f"the processes do not see the same checkpoints in {self.folder.path}: --out must be a folder that all "
                "of them share"
            )
        if found is not None:
            self._go_on_from(found)

    def _go_on_from(self, found: Checkpoint) -> None:
        resumed = from_record(found.record)
        changed = differences(flat(resumed.run), flat(self.settings))
        if changed:
            raise ValueError(
                f"{self.folder.path} holds a run with other settings ({'; '.join(changed)}): give those again, or name "
                "another --out"
            )
        if resumed.loader["digest"] != self.loader.members.digest:
            raise CheckpointError(
                f"{found.path} was made with other data than {', '.join(shown(self.settings).data.stores)} now holds, "
                "or other shares or order weights: give those back, or start a new run"
            )
        # Parts of a step may be cut otherwise than before.
        self.loader.load_state_dict({**resumed.loader, "batch_size": self.loader.batch_size})
        reweighed = resumed.design != design_digest(self.loader)
        if resumed.statistics != self.statistics or (reweighed and self.settings.data.weighting == "loss"):
            what = "design weights" if reweighed else "statistics of bands"
            raise CheckpointError(f"{found.path} was made with other {what}: its data have changed; start a new run")
        self.learner.load_state_dict(found.state(self.learner.device))
        self.tally, self.done = resumed.tally, found.step
        self.note(f"going on from {found.path} after step {found.step:,} of {self.steps:,}")
        if reweighed:
            self.note("  held-out samples have other design weights than before: their errors cannot be compared")
        before, now = resumed.surroundings, surroundings(self.settings, self.loader, self.ranks.world_size)
        other = [f"{name} {before.get(name)} → {value}" for name, value in now.items() if before.get(name) != value]
        if other:
            self.note(f"  not bit by bit as without the break, since these differ: {', '.join(other)}")

    def owed(self, watchers: Sequence[Watcher]) -> list[Watcher]:
        """Looks that were due after the last step and have no event: the process was stopped before or amid them."""
        logged: set[object] = set()
        if self.ranks.main and self.done and (self.folder.path / "log.jsonl").exists():
            logged = {entry["event"] for entry in read_log(self.folder.path) if entry["step"] == self.done}
        found = []
        for watcher in watchers:
            due = self.done > 0 and (self.done == self.steps or self._due(watcher.every))
            if self.ranks.any(self.ranks.main and due and watcher.name not in logged, self.learner.device):
                found.append(watcher)
        return found

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Keep log and status until the end."""
        if not self.ranks.main:
            yield
            return
        self.folder.write_settings(self.settings)
        self._log = RunLog(self.folder.path, tensorboard=self.settings.watch.tensorboard)
        self.folder.write_status("running", self.done, self.steps)
        try:
            yield
        finally:
            self._log.close()

    def fit(self, watchers: Sequence[Watcher], owed: Sequence[Watcher] = ()) -> Outcome:
        """Take the steps that are left, after looks that are owed; says whether all was done or somebody stopped it."""
        self._begin()
        if not self._watch_by(owed):
            return self._end("interrupted")
        batches = iter(self.loader)
        pending: Pending | None = None
        while self.done < self.steps:
            parts, rate = self._next(batches), self._rate(self.done)
            launched = self.learner.step(
                self.done, parts, rate, count=self.settings.data.accumulate, stop=self.learner.stop.wanted
            )
            # What a step found is read while the next one runs: the device never waits for us.
            stopping = pending is not None and self._take(pending).stop
            pending, self.done = launched, self.done + 1
            self._watch.done(self.settings.data.batch_size)
            last = self.done == self.steps
            if stopping or last or self._any_due():
                stopping |= self._take(pending).stop
                pending = None
                if not self._pause(watchers, rate, last=last, stopping=stopping):
                    return self._end("interrupted")
        if self.tally.broken + self.tally.empty >= self.steps or not self.learner.finite():
            raise TrainingError(
                f"after {self.steps:,} steps the network is of no use: {self.tally.broken:,} had no finite gradient, "
                f"{self.tally.empty:,} no valid hidden pixel; lower optimizer.rate or set optimizer.clip, and start a "
                "new run"
            )
        return self._end("finished")

    def _begin(self) -> None:
        """Say what is going to be done, and start the clock."""
        for note in self._notes:
            self.say(note)
        run, device = self.settings, self.learner.device
        peak, source = peak_flops(device, run.precision)
        grid = grid_of(run, self.loader)
        tokens = int(np.prod(grid))
        seen = seen_count(tokens, run.task.ratio) if run.task.ratio else tokens
        flops = step_flops(run.model.encoder, run.model.decoder, grid, seen)
        weights = sum(weight.numel() for weight in self.learner.model.parameters())
        about = {
            "samples": len(self.loader.members),
            "steps": self.steps,
            "weights": weights,
            "tokens": tokens,
            "seen": seen,
            "gflop_per_view": flops / 1e9,
            "peak_tflops": peak / 1e12,
            "peak_source": source,
            "device": device_name(device),
            "world_size": self.ranks.world_size,
            "versions": versions(),
        }
        if self._log is not None:
            self._log.write("resume" if self.done else "start", self.done, about)
        self.say(
            f"{len(self.loader.members):,} samples; {weights / 1e6:,.1f} M weights on {about['device']}"
            + ("" if self.ranks.alone else f" × {self.ranks.world_size}")
            + f"; {self.steps:,} steps of {run.data.batch_size} samples"
            + (f" × {run.repeats} views" if run.repeats > 1 else "")
            + f"; {flops / 1e9:,.1f} GFLOP per view; peak {peak / 1e12:,.2f} TFLOP/s ({source})"
        )
        watch = run.watch
        if (watch.validate or watch.probe or watch.pictures) and not has_split(self.loader, "heldout"):
            self.say("the data have no held-out samples: no validation, no probe; pictures are of training samples")
        self._watch = Stopwatch(
            flops=flops * run.repeats, peak=peak, devices=self.ranks.world_size, clock=self.progress.clock
        )

    def _next(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The parts of a step."""
        for _ in range(self.settings.data.accumulate):
            start = self.progress.clock()
            part = next(batches)
            if self.learner.device.type != "cuda":  # a GPU is still at work then: it measures its own waiting
                self._watch.waited(self.progress.clock() - start)
            yield part

    def _rate(self, step: int) -> float:
        return peak_rate(self.settings.optimizer.rate, self.settings.views) * self.schedule.factor(step)

    def _take(self, pending: Pending) -> StepResult:
        """Count what a step found."""
        found, tally = pending.result(), self.tally
        tally.empty += found.empty
        tally.broken += found.broken
        tally.in_a_row = tally.in_a_row + 1 if found.broken else 0
        if tally.in_a_row >= self.settings.patience:
            raise TrainingError(
                f"no finite gradient in {tally.in_a_row} steps up to step {found.step + 1:,} (loss {found.loss}): "
                "lower optimizer.rate or set optimizer.clip, and start a new run; losses in the log say when it began, "
                f"checkpoints before that are in {self.folder.checkpoints}"
            )
        if not (found.empty or found.broken):
            tally.window.append(found.loss)
        self._gradient = found.gradient
        self._watch.waited(found.idle)
        return found

    def _due(self, every: int) -> bool:
        return every > 0 and self.done % every == 0

    def _any_due(self) -> bool:
        """By settings alone, so that all ranks say the same."""
        watch = self.settings.watch
        return any(map(self._due, (watch.log, watch.checkpoint, watch.validate, watch.pictures, watch.probe)))

    def _pause(self, watchers: Sequence[Watcher], rate: float, *, last: bool, stopping: bool) -> bool:
        """Do what is due after a step: all of it at the end, only what must be when stopping; False ends the run."""
        must = last or stopping
        if must or self._due(self.settings.watch.log):
            self._report(rate, self._watch.look(), always=must)
        saved = must or self._due(self.settings.watch.checkpoint)
        if saved:  # before anything else that may fail or take long
            self._save()
        if stopping and not last:
            return False
        if self._watch_by([watcher for watcher in watchers if last or self._due(watcher.every)]):
            return True
        if not saved:
            self._save()
        return False

    def _watch_by(self, watchers: Sequence[Watcher]) -> bool:
        """Look at the network; False where somebody wanted to stop meanwhile."""
        start = self.progress.clock()
        try:
            for watcher in watchers:
                self.progress.status(f"step {self.done:,}: {watcher.name}", always=self.progress.live)
                found = watcher.look(self.done)
                if self._log is not None and found:
                    self._log.write(watcher.name, self.done, found)
                for line in watcher.lines(found) if found else []:
                    self.say(line)
                if self.learner.stopping():
                    return False
        except StoppedError:
            return False
        finally:
            self.learner.paused()
            self._watch.pause(self.progress.clock() - start)
        return True

    def _report(self, rate: float, pace: Pace, *, always: bool) -> None:
        """A line of the log, and of the terminal."""
        window, size = self.tally.window, self.settings.data.batch_size
        loss = sum(window) / len(window) if window else float("nan")
        self.tally.window = []
        left = (self.steps - self.done) * size / pace.samples_per_second if pace.samples_per_second else 0.0
        if self._log is not None:
            values = {
                "loss": loss,
                "rate": rate,
                "gradient": self._gradient,
                "samples": self.loader.consumed,
                "epoch": self.loader.consumed / len(self.loader.members),
                "empty": self.tally.empty,
                "broken": self.tally.broken,
                "samples_per_second": pace.samples_per_second,
                "utilisation": pace.utilisation,
                "data_wait": pace.data_wait,
            }
            self._log.write("train", self.done, values)
        self.progress.status(
            f"step {self.done:,} of {self.steps:,} ({100 * self.done // self.steps} %): loss {loss:.4f}, "
            f"{pace.samples_per_second:,.1f} samples/s, MFU {100 * pace.utilisation:.0f} %, data wait "
            f"{100 * pace.data_wait:.0f} %, {duration(left)} left" + self._useless(),
            always=always,
        )

    def _useless(self) -> str:
        counts = {"without a finite gradient": self.tally.broken, "without a valid pixel": self.tally.empty}
        return "".join(f"; {count:,} steps {words}" for words, count in counts.items() if count)

    def _save(self) -> None:
        """Write a checkpoint; all ranks hold the same, one writes."""
        if not self.ranks.main:
            return
        if self._log is not None:
            self._log.flush()  # a log that is behind its checkpoint would have a gap
        record = record_of(self.settings, self.loader, self.statistics, self.tally, self.ranks.world_size)
        state = self.learner.state_dict()
        write_checkpoint(self.folder.checkpoints, self.done, state, record, keep=self.settings.watch.keep)
        self.folder.write_status("running", self.done, self.steps)

    def _end(self, outcome: Outcome) -> Outcome:
        if self.ranks.main:
            self.folder.write_status(outcome, self.done, self.steps)
        if self._log is not None:
            self._log.write("end", self.done, {"outcome": outcome})
        rest = "" if outcome == "finished" else "; the same command goes on from here"
        self.say(f"{outcome} after step {self.done:,} of {self.steps:,}: {self.folder.path}{rest}")
        return outcome
