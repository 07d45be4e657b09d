"""The main job: search → plan → respond → write → publish → report, each stage continued where a run before stopped."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from geofm_pipeline.access.faults import OF_THE_LOGIN, FetchError
from geofm_pipeline.access.notices import said_by
from geofm_pipeline.access.services import changed_fields
from geofm_pipeline.access.settings import Access, Reading
from geofm_pipeline.access.transport import needs_earthdata, transport
from geofm_pipeline.card import Card, versions
from geofm_pipeline.cluster import Runner, check_address
from geofm_pipeline.config import SampleConfig, default_out
from geofm_pipeline.errors import ArchiveError, BlockReadError, GeofmError, InputError, LoginError, ResourceError
from geofm_pipeline.lazy_runner import LazyRunner, lazy_runner
from geofm_pipeline.progress import Progress, human_bytes
from geofm_pipeline.runlog import RunLog
from geofm_pipeline.stages.inputs import Inputs, resolve_inputs
from geofm_pipeline.stages.plan import Planned, make_plan
from geofm_pipeline.stages.project import project, refuse_too_much
from geofm_pipeline.stages.publish import publish
from geofm_pipeline.stages.respond import Responded, check_existing, make_response
from geofm_pipeline.stages.search import search
from geofm_pipeline.stages.write import row_requests, write
from geofm_pipeline.store import StoreSpec, create, remove_leftovers, writer_lock
from geofm_pipeline.store.files import disk_errors
from geofm_pipeline.surroundings import logged, timed, verify
from geofm_pipeline.waves import is_finished, open_wave
from geofm_pipeline.workspace import Workspace


def run_job(config: SampleConfig, *, progress: Progress, command: str) -> Path:
    """Run or continue the job and return the path of its report.

    Raises
    ------
    GeofmError
        Any of geofm_pipeline.errors; the folder keeps every stage that was committed.
    """
    if config.scheduler is not None:
        check_address(config.scheduler)
    check_existing(config)
    access = config.reach()
    inputs = resolve_inputs(config, access, progress)
    # Absolute, since workers may run in another folder.
    root = (config.out or default_out(config, str(inputs.years))).absolute()
    _make_parent(root)
    with writer_lock(root), said_by(progress.say):
        space = open_wave(root, design=config.design_fields(), digest=config.digest(), extend=config.extend)
        return _Job(config, access, inputs, space, progress).run(command)


def _make_parent(root: Path) -> None:
    try:
        with disk_errors(root):
            root.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--out {root} lies below a file, not a folder ({error}): name another --out") from error


class _Job:
    """One run in one folder."""

    def __init__(
        self, config: SampleConfig, access: Access, inputs: Inputs, space: Workspace, progress: Progress
    ) -> None:
        self.config, self.access, self.inputs, self.space, self.progress = config, access, inputs, space, progress
        self.card = Card(space.card)
        self.log = RunLog(space.log)

    def run(self, command: str) -> Path:
        """Log the run around its stages."""
        try:
            with logged(self.log, self.progress, command):
                report = self._stages(command)
        except BlockReadError as error:
            if error.fault in OF_THE_LOGIN:  # a user's matter, with an exit code of its own
                raise LoginError(str(error)) from None
            raise
        self.log.write("done", str(report))
        return report

    def _stages(self, command: str) -> Path:
        finished = is_finished(self.space)
        with timed(self.card, self.log, "search"):
            scenes = search(self.space, self.inputs, self.access, self.config.refresh, self.progress, self.card)
        # Only now: a command that was refused, or found nothing, made nothing of this dataset.
        if not finished:
            self.card.set("asked", self.config.design_fields())
        self.card.ran(command, dry_run=self.config.dry_run)
        self.card.set("versions", dict(versions()))
        reading = self._reading(scenes)
        with self._runner(reading) as runner:
            with timed(self.card, self.log, "plan"):
                planned = make_plan(self.space, self.inputs, self.config, scenes, runner, self.progress, self.card)
                self._project(planned, scenes, finished)
            if not self.config.dry_run:
                self._finish(planned, scenes, runner, finished)
        return self._report()

    def _reading(self, scenes: pa.Table) -> Reading:
        """What workers read with. A login that fails is told now, not after maps and plan were made.

        A foreign cluster's workers have credentials of their own, which this process need not have.
        """
        templates = set(scenes["href_template"].to_pylist())
        protected = any(needs_earthdata(self.access, href) for href in templates)
        reading = Reading(access=self.access, login=protected and not self.config.dry_run)  # a plan reads no pixel
        self._note_access(reading)
        if reading.login and self.config.scheduler is None:
            try:
                transport(self.access).routes.earthdata.token()
            except FetchError as error:
                kind = ArchiveError if error.transient else LoginError
                raise kind(f"NASA's protected files cannot be read: {error.cause}") from None
        return reading

    def _runner(self, reading: Reading) -> AbstractContextManager[LazyRunner]:
        """Where tasks run; workers log in first where the files need it."""
        return lazy_runner(
            workers=self.config.workers,
            scheduler=self.config.scheduler,
            scratch=self.space.work / "dask",
            said=self.progress.say,
            reading=reading,
        )

    def _note_access(self, reading: Reading) -> None:
        access = self.access
        facts = {
            "route": access.route,
            "in_flight": access.in_flight,
            "requests_per_second": access.requests_per_second,
            "login": reading.login,
            "services_changed": changed_fields(access.services),
        }
        self.card.set("access", {**self.card.section("access"), **facts})

    def _finish(self, planned: Planned, scenes: pa.Table, runner: Runner, finished: bool) -> None:
        try:
            if finished:
                self.progress.say("everything is written already")
            else:
                self._carry_out(planned, scenes, runner)
            with timed(self.card, self.log, "verify"):
                verify(self.space.root, self.card, self.progress)
        except GeofmError:
            self.progress.say(f"report so far: {self._report()}")
            raise

    def _project(self, planned: Planned, scenes: pa.Table, finished: bool) -> None:
        projection = project(planned.frame, planned.plan, scenes, self.config)
        if not finished:
            self.card.set("projection", projection.as_dict())
        if self.config.dry_run:
            for line in projection.lines():
                self.progress.say(f"dry run: {line}")
            try:
                refuse_too_much(projection, self.config, self.space.root)
            except ResourceError as error:
                self.progress.say(f"dry run: the run itself would be refused: {error}")
        else:
            refuse_too_much(projection, self.config, self.space.root)

    def _carry_out(self, planned: Planned, scenes: pa.Table, runner: Runner) -> None:
        with timed(self.card, self.log, "respond"):
            responded = make_response(self.space, self.config, planned, scenes, runner, self.progress, self.card)
        with timed(self.card, self.log, "write"):
            self._write(planned, responded, scenes, runner)

    def _write(self, planned: Planned, responded: Responded, scenes: pa.Table, runner: Runner) -> None:
        requests = row_requests(responded.drawn, scenes)
        spec = self._spec(planned, responded)
        create(self.space.store, spec)
        remove_leftovers(self.space.parts)
        write(self.space.store, spec, self.space.parts, requests, self.access, runner, self.progress)
        chips = [request.chip for request in requests]
        summary = publish(self.space, self.config, spec, planned, responded, chips, self.progress, self.card)
        self.progress.say(
            f"write: {summary.samples - len(summary.tombstones):,} chips in {spec.shards:,} shards, "
            f"{human_bytes(summary.bytes)}"
        )
        for stone in summary.tombstones:
            self.progress.say(
                f"write: unit {stone.unit} could not be read: {stone.granule} {stone.band}: {stone.cause}"
            )

    def _spec(self, planned: Planned, responded: Responded) -> StoreSpec:
        config = self.config
        return StoreSpec(
            n=responded.drawn.num_rows,
            timesteps=config.timesteps,
            height=config.chip_size,
            width=config.chip_size,
            seed=config.seed,
            wave=self.space.wave,
            group_shards=config.group_shards,
            profile=config.profile,
            min_clear=config.min_clear,
            provenance={
                "product": "HLSL30 v2.0, HLSS30 v2.0",
                "plan_digest": planned.digest,
                "response_digest": responded.digest,
            },
        )

    def _report(self) -> Path:
        from geofm_pipeline.report import diagnostics, render_report  # only once there is something to show

        self.card.set("diagnostics", diagnostics(self.space.root))
        return render_report(self.space.root)
