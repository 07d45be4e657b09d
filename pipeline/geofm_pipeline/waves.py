"""Which wave a run belongs to: the first, the continuation of one that was stopped, or an extension.

An extension changes nothing that is written. It may ask for more samples of the same ground and years (the next
ranks of the plan) or for more years or ground (a new part of the frame); everything else of the design must stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.store import is_sealed
from geofm_pipeline.store.files import disk_errors
from geofm_pipeline.workspace import WaveRecord, Workspace, committed, is_planned, is_settled, read_waves, write_waves

_MAY_GROW = ("region", "years", "samples", "budget", "heldout_samples", "catalog", "existing")
_NEW_PART = ("region", "years")


def open_wave(root: Path, *, design: Mapping[str, object], digest: str, extend: bool) -> Workspace:
    """Create or continue a dataset folder, or begin a wave in it.

    Parameters
    ----------
    design, digest : the options that decide what is in the store, and their digest
    extend : whether a design that only grows begins a new wave

    Raises
    ------
    OutputConflictError
        When the folder holds another design (with the options that differ), a newer schema or foreign files, or
        there is nothing that could be extended.
    """
    first = WaveRecord(wave=1, part=1, asked=0, design=design, digest=digest)
    space = first.space(root)
    if not space.commits.exists():
        _refuse_foreign(root, extend)
        return _begin(space, [first])
    waves = read_waves(space)
    for wave in waves:
        if wave.digest == digest and (wave.wave == 1 or is_planned(wave.space(root))):
            return wave.space(root)
    if not _is_decided(waves[-1].space(root)):
        # What an extension planned and did not settle may be planned anew, and so may a first run before its plan.
        waves = waves[:-1]
    if not waves:
        _refuse_foreign(root, extend, started=True)
        return _begin(space, [first])
    if not extend:
        raise OutputConflictError(
            f"--out {root} holds another plan ({_differences(waves[-1].design, design, ())}); repeat its options to "
            "continue it, add --extend to add samples, years or ground, or name another --out"
        )
    return _extended(root, waves, design, digest)


def _is_decided(space: Workspace) -> bool:
    """Whether other options must not replace this wave: its units are settled, or, in a first wave, planned."""
    return is_planned(space) if space.wave == 1 else is_settled(space)


def _extended(root: Path, waves: Sequence[WaveRecord], design: Mapping[str, object], digest: str) -> Workspace:
    last = waves[-1].space(root)
    if not is_finished(last):
        raise OutputConflictError(
            f"wave {last.wave} of {root} is not finished: repeat its command first "
            f"({_differences(waves[-1].design, design, ())})"
        )
    changed = _differences(waves[-1].design, design, _MAY_GROW)
    if changed:
        raise OutputConflictError(
            f"an extension of {root} cannot change the design ({changed}): the probabilities of old and new samples "
            "would not belong together; use the options it was made with, or another --out"
        )
    number = waves[-1].wave + 1
    same = [wave.part for wave in waves if all(wave.design.get(name) == design.get(name) for name in _NEW_PART)]
    record = WaveRecord(wave=number, part=same[-1] if same else number, asked=0, design=design, digest=digest)
    return _begin(record.space(root), [*waves, record])


def note_asked(space: Workspace, asked: int) -> None:
    """Record how many samples a wave asks for, once its plan is made."""
    waves = read_waves(space)
    write_waves(
        space,
        [WaveRecord(**{**vars(wave), "asked": asked}) if wave.wave == space.wave else wave for wave in waves],
    )


def _begin(space: Workspace, waves: Sequence[WaveRecord]) -> Workspace:
    """Record a wave; what another one of its number had searched and planned is forgotten and removed."""
    stale = Workspace(root=space.root, wave=space.wave, part=space.wave)
    with disk_errors(space.root):
        space.work.mkdir(parents=True, exist_ok=True)
        write_waves(space, waves, forget=(stale.plan, stale.scenes))
        if space.wave == 1:
            space.card.unlink(missing_ok=True)
        for path in (stale.plan, stale.scenes):
            path.unlink(missing_ok=True)
        shutil.rmtree(stale.frame, ignore_errors=True)
    return space


def _refuse_foreign(root: Path, extend: bool, *, started: bool = False) -> None:
    if extend:
        raise OutputConflictError(f"--extend: {root} holds no finished dataset; make one first, without --extend")
    if not started and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise OutputConflictError(
            f"--out {root} exists and holds no dataset of geofm-sample; name a new or empty folder"
        )


def is_finished(space: Workspace) -> bool:
    """Whether the wave's store is sealed and its samples are published: then nothing depends on work/ any more."""
    try:
        published = committed(space, space.samples) is not None
    except OutputConflictError:  # samples.parquet was changed or lost: it is made again
        return False
    if not published or not is_sealed(space.store):
        return False
    return space.wave in pq.read_table(space.samples, columns=["wave"])["wave"].to_pylist()


def _differences(old: Mapping[str, object], new: Mapping[str, object], ignored: Sequence[str]) -> str:
    """The fields that differ, as text."""
    names = [name for name in new if name not in ignored and old.get(name) != new[name]]
    return "; ".join(f"{name}: {old.get(name)!r} there, {new[name]!r} now" for name in names)
