"""The import: list → open → plan → write → verify, each stage continued where a run before stopped.

The folder is that of any dataset, so `verify` and readers need not know where the pixels came from: scenes.parquet
holds the images, plan.parquet the samples in order of the store, both committed before a pixel is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.card import Card, versions
from geofm_pipeline.cluster import Runner
from geofm_pipeline.errors import InputError, OutputConflictError
from geofm_pipeline.importing.config import ImportConfig, design_digest
from geofm_pipeline.importing.images import Image, declared_otherwise, open_images
from geofm_pipeline.importing.listing import Listing, list_images
from geofm_pipeline.importing.pixels import MaskValues
from geofm_pipeline.importing.planning import Choice, check_counts, check_possible, choose, measure_all
from geofm_pipeline.importing.reader import Meaning
from geofm_pipeline.importing.tables import CHOSEN, images_of, images_table, rows_table, samples_table
from geofm_pipeline.importing.words import counted
from geofm_pipeline.importing.writing import row_requests, task_of, write_task
from geofm_pipeline.lazy_runner import lazy_runner
from geofm_pipeline.progress import Progress, human_bytes
from geofm_pipeline.runlog import RunLog
from geofm_pipeline.store import StoreSpec, create, finalise, pending_groups, remove_leftovers, writer_lock
from geofm_pipeline.store.files import disk_errors
from geofm_pipeline.surroundings import logged, store_facts, timed, verify
from geofm_pipeline.waves import is_finished, open_wave
from geofm_pipeline.workspace import (
    Workspace,
    commit_table,
    committed,
    is_planned,
    named_frame,
    read_waves,
)

LITTLE = 2 << 30
"""Bytes of images below which one process is done before a cluster has started."""
_OF_IMPORT = "images_found"
"""Field of the design that only imports have."""


def run_import(config: ImportConfig, *, progress: Progress, command: str) -> Path:
    """Run or continue an import and return its dataset folder.

    Raises
    ------
    GeofmError
        Any of geofm_pipeline.errors; the folder keeps every stage that was committed.
    """
    listing = list_images(config)
    root = config.out.expanduser().absolute()
    try:
        with disk_errors(root):
            root.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--out {root} lies below a file, not a folder ({error}): name another --out") from error
    with writer_lock(root):
        space = _open_folder(root, {**config.design_fields(), _OF_IMPORT: listing.summary})
        return _Import(config, listing, space, progress).run(command)


def refuse_imported(root: Path, command: str) -> None:
    """Raise InputError where a dataset folder is an import, which was not drawn and has nothing to report."""
    space = Workspace(root=root)
    if space.commits.exists() and _OF_IMPORT in read_waves(space)[0].design:
        raise InputError(
            f"{root} was imported, not drawn from an archive, so `{command}` has no design to go by; card.json and "
            "samples.parquet say what is in it"
        )


def _open_folder(root: Path, design: dict[str, object]) -> Workspace:
    """The dataset folder, new or of the same import."""
    space, digest = Workspace(root=root), design_digest(design)
    if space.commits.exists():
        there = read_waves(space)[0]
        if there.digest != digest and is_planned(space):
            changed = [name for name in design if there.design.get(name) != design[name]]
            differ = "; ".join(f"{name}: {there.design.get(name)!r} there, {design[name]!r} now" for name in changed)
            raise OutputConflictError(
                f"--out {root} holds another dataset ({differ}); repeat its options, and leave its images as they "
                "were, to continue it, or name another --out"
            )
    return open_wave(root, design=design, digest=digest, extend=False)


class _Import:
    """One run in one folder."""

    def __init__(self, config: ImportConfig, listing: Listing, space: Workspace, progress: Progress) -> None:
        self.config, self.listing, self.space, self.progress = config, listing, space, progress
        self.card, self.log = Card(space.card), RunLog(space.log)
        mask = None if config.mask_values is None else MaskValues.parse(config.mask_values)
        self.meaning = Meaning(conversion=config.conversion, mask=mask)

    def run(self, command: str) -> Path:
        """Log the run around its stages."""
        with logged(self.log, self.progress, command):
            self._stages(command)
        self.log.write("done", str(self.space.root))
        return self.space.root

    def _stages(self, command: str) -> None:
        finished = is_finished(self.space)
        if not finished:
            self.card.set("asked", {**self.config.design_fields(), _OF_IMPORT: self.listing.summary})
        self.card.ran(command, dry_run=self.config.dry_run)
        self.card.set("versions", dict(versions()))
        workers = self.config.workers
        if workers is None and sum(file.bytes for file in self.listing.files) < LITTLE:
            workers = 0
        with lazy_runner(
            workers=workers, scheduler=None, scratch=self.space.work / "dask", said=self.progress.say
        ) as runner:
            with timed(self.card, self.log, "plan"):
                digest = committed(self.space, self.space.plan) or self._plan(runner)
                chosen = CHOSEN.check(pq.read_table(self.space.plan))
                self._say_plan(chosen)
            if finished:
                self.progress.say("everything is written already")
            elif self.config.dry_run:
                self.progress.say(
                    "dry run: no store is written; the same command without --dry-run continues from this plan"
                )
            if self.config.dry_run:
                return
            if not finished:
                with timed(self.card, self.log, "write"):
                    self._write(chosen, digest, runner, 1 if workers != 0 else min(4, os.cpu_count() or 1))
        with timed(self.card, self.log, "verify"):
            verify(self.space.root, self.card, self.progress)

    def _plan(self, runner: Runner) -> str:
        """Open and measure the images, settle the samples, and commit both."""
        for sentence in self.listing.said:
            self._note(sentence)
        images = open_images(self.listing, self.config, self.progress)
        declared = declared_otherwise(images[0], self.config)
        if declared is not None:
            self._note(declared)
        self._note_sensor(images)
        check_possible(images, self.config)
        measured = measure_all(images, self.config, self.meaning, runner, self.progress)
        doubtful = check_counts(measured, self.config)
        choice = choose(images, measured, self.config)
        for sentence in (*(() if doubtful is None else (doubtful,)), *choice.said):
            self._note(sentence)
        self._plan_facts(choice)
        commit_table(self.space, self.space.scenes, images_table(images))
        return commit_table(self.space, self.space.plan, named_frame(self.space, choice.table))

    def _note(self, sentence: str) -> None:
        if self.card.say(sentence):
            self.progress.say(f"plan: {sentence}")

    def _note_sensor(self, images: Sequence[Image]) -> None:
        codes = sorted({image.sensor for image in images})
        if self.config.sensor is None and len(codes) == 1:
            self._note(
                f"the images are recorded as {codes[0]}, for a store knows L30 and S30 only; --sensor says which"
            )

    def _plan_facts(self, choice: Choice) -> None:
        split = choice.table["split"].to_numpy()
        facts = {
            "samples": int((split == 0).sum()),
            "heldout_samples": int((split == 1).sum()),
            "places_with_samples": choice.places,
            "heldout_places": list(choice.heldout_places),
            **choice.facts,
        }
        self.card.set("plan", facts)

    def _say_plan(self, chosen: pa.Table) -> None:
        config, split, place = self.config, chosen["split"].to_numpy(), np.array(chosen["place"].to_pylist())
        raw = chosen.num_rows * config.timesteps * config.chip_size**2 * (2 * len(config.choices) + 1)
        parts = [
            f"{counted(int((split == code).sum()), f'{name} sample')} of "
            f"{counted(len(set(place[split == code])), 'place')}"
            for code, name in ((0, "training"), (1, "held-out"))
            if (split == code).any()
        ]
        self.progress.say(
            f"plan: {' and '.join(parts)}, each {counted(config.timesteps, 'date')} of "
            f"{counted(len(config.choices), 'band')} of {config.chip_size} × {config.chip_size} px; at most "
            f"{human_bytes(raw)} to write, before compression"
        )

    def _write(self, chosen: pa.Table, digest: str, runner: Runner, threads: int) -> None:
        images = {image.name: image for image in images_of(pq.read_table(self.space.scenes))}
        spec = self._spec(chosen, digest)
        store, parts = self.space.store, self.space.parts
        create(store, spec)
        remove_leftovers(parts)
        pending = pending_groups(store, spec, parts)
        if pending:
            self._refuse_changed(images)
        requests = row_requests(chosen, images, self.config.chip_size)
        tasks = [task_of(self.space, spec, group, requests, images, self.meaning, threads) for group in pending]
        missing = sum(len(task.requests) for task in tasks)
        if missing < spec.n:
            self.progress.say(f"write: {spec.n - missing:,} of {spec.n:,} samples are written already")
        done = runner.run(write_task, tasks)
        for _ in self.progress.count(
            done, total=missing, label="write", unit="samples", size=lambda one: len(tasks[one[0]].requests)
        ):
            pass
        summary = finalise(store, spec, parts, rows_table(chosen))
        assert not summary.tombstones, "a reader of images answers with chips or raises"
        commit_table(self.space, self.space.samples, samples_table(chosen, summary))
        self.card.set("store", store_facts(spec, summary))
        self.progress.say(
            f"write: {counted(spec.n, 'sample')} in {counted(spec.shards, 'shard')}, {human_bytes(summary.bytes)}"
        )

    def _refuse_changed(self, images: Mapping[str, Image]) -> None:
        """Files that were changed after the plan was made would give a store that the plan does not describe."""
        planned = {band.path: image for image in images.values() for band in image.bands}
        for file in self.listing.files:
            image = planned.get(file.path)
            if image is not None and file.changed > image.changed:
                raise OutputConflictError(
                    f"{file.path} was changed after {self.space.plan} was made of it: restore it, or name another --out"
                )

    def _spec(self, chosen: pa.Table, digest: str) -> StoreSpec:
        config = self.config
        return StoreSpec(
            n=chosen.num_rows,
            timesteps=config.timesteps,
            height=config.chip_size,
            width=config.chip_size,
            seed=config.seed,
            bands=tuple(band.name for band in config.choices),
            group_shards=config.group_shards,
            profile=config.profile,
            min_clear=config.min_valid,
            provenance={
                "product": "imported images",
                "plan_digest": digest,
                "values": f"counts = value × {1.0 if config.scale is None else config.scale:g} + {config.offset:g}",
                "mask_values": config.mask_values or "none: 64 where a pixel is there",
            },
        )
