"""Stage 3, respond: look through the clouds, fix who is in, which dates, and where each chip goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.card import Card
from geofm_pipeline.cluster import A, R, Runner
from geofm_pipeline.config import SampleConfig
from geofm_pipeline.errors import ArchiveError, InputError, NothingFoundError, OutputConflictError
from geofm_pipeline.fmask_counts import OK
from geofm_pipeline.inform import Informer
from geofm_pipeline.progress import Progress
from geofm_pipeline.screening import MapTasks, Screening
from geofm_pipeline.stages.growing import earlier_waves
from geofm_pipeline.stages.plan import Planned
from geofm_pipeline.store import assign_rows
from geofm_pipeline.workspace import Workspace, commit_table, committed, existing_waves
from geofm_pipeline.years import Years
from geofm_sampling import Design, Look, Response, respond
from geofm_sampling.phase_two import descriptor_matrix
from geofm_sampling.tables import RESPONSE, STATES

SHOWN = 5
"""Unusable granules named on the terminal; the card has them all."""


@dataclass(frozen=True, kw_only=True)
class Responded:
    """What the respond stage hands on."""

    table: pa.Table
    """RESPONSE of every unit that was looked at."""
    digest: str
    """sha256 of response.parquet."""

    @property
    def drawn(self) -> pa.Table:
        """The drawn rows in order of (shard, row), which is the order of the store."""
        chosen = self.table.filter(pa.array(self.table["shard"].to_numpy() >= 0))
        return chosen.sort_by([("shard", "ascending"), ("row", "ascending")])


def make_response(
    space: Workspace,
    config: SampleConfig,
    planned: Planned,
    scenes: pa.Table,
    runner: Runner,
    progress: Progress,
    card: Card,
) -> Responded:
    """Response: from the folder if a run before committed it, else by screening granules in rank order."""
    digest = committed(space, space.response)
    if digest is None:
        digest = _respond_anew(space, config, planned, scenes, runner, progress, card)
    return Responded(table=RESPONSE.check(pq.read_table(space.response)), digest=digest)


def _respond_anew(
    space: Workspace,
    config: SampleConfig,
    planned: Planned,
    scenes: pa.Table,
    runner: Runner,
    progress: Progress,
    card: Card,
) -> str:
    design = planned.design
    scenes, source = _whole_scenes(scenes, progress, card), ArchiveSource(config.reach())
    screening = Screening(
        scenes,
        cache=space.screening,
        chip_size=design.chip_size,
        source=source,
        map_tasks=_mapper(runner, progress, "screen"),
    )
    informer = Informer(
        scenes,
        cache=space.information,
        chip_size=design.chip_size,
        source=source,
        map_tasks=_mapper(runner, progress, "overviews"),
    )

    def inform(units: NDArray[np.uint64], granules: pa.Array) -> pa.Table:
        progress.say(f"respond: overviews of {units.size:,} observable units")
        return informer.inform(units, granules.to_pylist())

    try:
        found = respond(
            planned.plan,
            planned.frame,
            design,
            _look(screening, planned.frame, design),
            inform=inform,
            existing=existing_descriptors(space, config) if design.information else None,
        )
    finally:  # also of a run that a fault ends
        card.reached("screening", screening.stats.tally)
        card.reached("information", informer.stats.tally)
    _note_screening(card, progress, screening)
    card.set("information", informer.facts())
    _note_response(card, progress, design, found)
    drawn = found.table["state"].to_numpy(zero_copy_only=False) == "drawn"
    if not drawn.any():
        raise NothingFoundError(_why_nothing(found, design))
    table = _with_places(found.table, drawn, config)
    return commit_table(space, space.response, RESPONSE.describe(table))


def _whole_scenes(scenes: pa.Table, progress: Progress, card: Card) -> pa.Table:
    """Granules that the catalogue lists with all their files: a chip cannot be made of the others."""
    whole = np.array([not missing for missing in scenes["missing"].to_pylist()], dtype=np.bool_)
    if whole.all():
        return scenes
    lacking = int((~whole).sum())
    first = scenes["granule_id"].filter(pa.array(~whole))[0].as_py()
    sentence = (
        f"{lacking:,} of {whole.size:,} granules lack a file in the catalogue ({first}, …): they count as not there."
    )
    if card.say(sentence):
        progress.say(f"respond: {sentence}")
    return scenes.filter(pa.array(whole))


def check_existing(config: SampleConfig) -> list[Workspace]:
    """Waves of the datasets of --existing that have a response.

    Raises
    ------
    InputError
        When a folder is no dataset.
    """
    folders = [word.strip() for word in (config.existing or "").split(",") if word.strip()]
    try:
        waves = [wave for folder in folders for wave in existing_waves(Path(folder).expanduser())]
    except OutputConflictError as error:
        raise InputError(f"--existing {config.existing}: {error}") from error
    return [wave for wave in waves if wave.response.exists()]


def existing_descriptors(space: Workspace, config: SampleConfig) -> NDArray[np.float32] | None:
    """Descriptors of the samples of earlier waves and of the datasets of --existing, shape (k, D); None without any."""
    waves = [*earlier_waves(space), *check_existing(config)]
    matrices = [_drawn_descriptors(wave.response) for wave in waves]
    matrices = [matrix for matrix in matrices if matrix.size]
    return np.concatenate(matrices) if matrices else None


def _drawn_descriptors(response: Path) -> NDArray[np.float32]:
    table = pq.read_table(response, columns=["state", "descriptor"], filters=[("state", "==", "drawn")])
    return descriptor_matrix(table["descriptor"].combine_chunks())[0]


def _look(screening: Screening, frame: pa.Table, design: Design) -> Look:
    """What sampling asks for: the LOOK rows of units, given their seasons in the frame."""
    frame_units = frame["unit"].to_numpy()
    start, end = frame["season_start"].to_numpy(), frame["season_end"].to_numpy()
    last_day = Years(years=design.years).last_day

    def look(units: NDArray[np.uint64]) -> pa.Table:
        at = np.searchsorted(frame_units, units)
        return screening.look(
            units, season_start=start[at], season_end=end[at], last_day=last_day, reach_days=design.reach
        )

    return look


def _mapper(runner: Runner, progress: Progress, label: str) -> MapTasks:
    """Batches of granules through the runner; results come as they finish and are not collected."""

    def map_tasks(task: Callable[[A], R], batches: Sequence[A]) -> Iterator[R]:
        if batches:
            results = runner.run(task, batches)
            for _, result in progress.count(results, total=len(batches), label=label, unit="batches"):
                yield result

    return map_tasks


def _with_places(table: pa.Table, drawn: NDArray[np.bool_], config: SampleConfig) -> pa.Table:
    shard, row = np.full(len(drawn), -1, dtype=np.int32), np.full(len(drawn), -1, dtype=np.int32)
    shard[drawn], row[drawn] = assign_rows(
        table["unit"].to_numpy()[drawn],
        table["stratum"].to_numpy()[drawn],
        seed=config.seed,
        group_shards=config.group_shards,
    )
    for name, values in (("shard", shard), ("row", row)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    return table


def _note_screening(card: Card, progress: Progress, screening: Screening) -> None:
    facts = screening.facts()
    card.set("screening", facts)
    granules = screening.granules().select(["granule_id", "state"]).to_pylist()
    unusable = [row for row in granules if row["state"] != OK]
    for row in unusable[:SHOWN]:
        progress.say(f"respond: {row['granule_id']} Fmask cannot be used: {row['state']}")
    if granules and len(unusable) == len(granules):
        raise ArchiveError(
            f"none of the {len(granules):,} Fmask files could be used ({unusable[0]['granule_id']}: "
            f"{unusable[0]['state']}); is the archive of this catalogue there and readable? Nothing was concluded from "
            "it: the same command tries again"
        )
    if unusable:
        sentence = (
            f"The Fmask of {len(unusable):,} of {len(granules):,} granules cannot be used; they count as not seen."
        )
        if card.say(sentence):
            progress.say(f"respond: {sentence}")


def _note_response(card: Card, progress: Progress, design: Design, found: Response) -> None:
    states = Counter(found.table["state"].to_pylist())
    drawn, looked = states["drawn"], found.table.num_rows
    observable = drawn + states["observable"]
    card.set(
        "response",
        {
            "asked": design.samples + design.heldout_samples,
            "looked": looked,
            "observable": observable,
            "drawn": drawn,
            "states": {state: states[state] for state in STATES},
            "strata": found.strata.to_pylist(),
        },
    )
    for sentence in found.said:
        if card.say(sentence):
            progress.say(f"respond: {sentence}")
    progress.say(f"respond: {looked:,} units looked at, {observable:,} observable, {drawn:,} drawn")


def _why_nothing(found: Response, design: Design) -> str:
    states = Counter(found.table["state"].to_pylist())
    reasons = "; ".join(f"{count:,} × {STATES[state]}" for state, count in states.most_common())
    return (
        f"none of the {found.table.num_rows:,} units looked at is observable with {design.timesteps} dates at least "
        f"{design.min_clear:.0%} clear and {design.min_gap}-{design.max_gap} days apart ({reasons}); "
        "lower --timesteps or --min-clear, widen the gaps, the years or the region"
    )
