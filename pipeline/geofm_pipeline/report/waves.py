"""What each wave asked for, found and wrote, and the sums over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from geofm_pipeline.report.folder import Folder, Wave, wave_of, with_state


@dataclass(frozen=True, kw_only=True)
class WaveLine:
    """One wave; a stage that has not run leaves None."""

    number: int
    years: str
    """Years asked for, empty where they were not noted."""
    asked: int | None
    """Samples asked for, held-out ones included."""
    looked: int | None
    observable: int | None
    drawn: int | None
    written: int | None
    bytes: int | None
    """Size of its store; None where it has none."""
    remark: str
    """What is unusual about it, in a sentence; mostly empty."""


def wave_lines(folder: Folder) -> Sequence[WaveLine]:
    """One line per wave."""
    states = {wave.number: Counter[str]() for wave in folder.waves}
    if folder.response is not None:
        for number, state in zip(wave_of(folder.response).tolist(), folder.response["state"].to_pylist(), strict=True):
            states[number][state] += 1
    return [_line(folder, wave, states[wave.number]) for wave in folder.waves]


def _line(folder: Folder, wave: Wave, states: Counter[str]) -> WaveLine:
    answered, store = wave.number in folder.answered, folder.facts.get(wave.number)
    return WaveLine(
        number=wave.number,
        years=wave.years,
        asked=asked_in(folder, wave),
        looked=states.total() if answered else None,
        observable=states["drawn"] + states["observable"] if answered else None,
        drawn=states["drawn"] if answered else None,
        written=written_in(folder, wave.number) if answered else None,
        bytes=store.bytes if store is not None and store.complete else None,
        remark=_remark(folder, wave.number, answered, states),
    )


def _remark(folder: Folder, number: int, answered: bool, states: Counter[str]) -> str:
    if answered and not states["drawn"]:
        return f"Wave {number} drew nothing." if states["observable"] else f"Wave {number} found nothing observable."
    if number in planned_waves(folder):
        return f"Wave {number} is planned only: nothing was looked at for it, and its samples count nowhere."
    return f"Wave {number} is unfinished." if number in unfinished_waves(folder) else ""


def asked_in(folder: Folder, wave: Wave) -> int | None:
    """Samples that a wave asks for, training and held-out; None before its plan."""
    record = folder.records.get(wave.number)
    design = record.part("design") if record is not None else None
    training = wave.asked or (design.count("samples") if design is not None else None)
    held = design.count("heldout_samples") if design is not None else None
    return None if not training and not held else (training or 0) + (held or 0)


def asked_in_all(folder: Folder) -> int | None:
    """Samples that all waves ask for together, extensions without a response left out; None before the first plan."""
    decided = [wave for wave in folder.waves if wave.number not in planned_waves(folder)]
    known = [asked for wave in decided if (asked := asked_in(folder, wave)) is not None]
    card = folder.card
    noted = card.part("response").count("asked") or card.part("plan").part("design").count("samples")
    return sum(known) if known else noted


def written_in(folder: Folder, number: int) -> int | None:
    """Written chips of a wave; None while samples.parquet is not there."""
    if folder.samples is None:
        return None
    written = with_state(folder.samples, "written")
    return int((wave_of(written) == number).sum())


def empty_waves(folder: Folder) -> list[int]:
    """Waves that drew nothing and hence have no store."""
    return [number for number in folder.answered if number not in _drawing(folder)]


def unfinished_waves(folder: Folder) -> list[int]:
    """Waves that drew units of which none was published."""
    published = set() if folder.samples is None else set(wave_of(folder.samples).tolist())
    return sorted(_drawing(folder) - published)


def planned_waves(folder: Folder) -> list[int]:
    """Extensions that have a plan and no response: they leave the dataset what it was."""
    return [number for number in folder.records if number > 1 and number not in folder.answered]


def without_statistics(folder: Folder) -> list[int]:
    """Waves that drew units and have no sealed store with sums of training chips."""
    known = {number for number, store in folder.facts.items() if store.training}
    return sorted(_drawing(folder) - known)


def _drawing(folder: Folder) -> set[int]:
    return set() if folder.response is None else set(wave_of(with_state(folder.response, "drawn")).tolist())


def card_wave(folder: Folder) -> int | None:
    """The wave that the card's figures on reading and writing are of; None where nothing tells.

    Each wave that writes replaces them, so they are those of the store that the card names.
    """
    if len(folder.waves) == 1:
        return folder.waves[0].number
    digest = folder.card.part("store").text("digest")
    return next((number for number, store in folder.facts.items() if digest and store.digest == digest), None)
