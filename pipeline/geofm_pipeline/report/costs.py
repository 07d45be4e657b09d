"""What the run read and wrote, what it took, and what it will take: bands, requests, projection, versions, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geofm_pipeline.report import words
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.headline import written_chips


@dataclass(frozen=True, kw_only=True)
class BandLine:
    """Statistics of one band over valid pixels of the training split."""

    name: str
    mean: float | None
    std: float | None
    nonpositive: float | None
    count: int | None


@dataclass(frozen=True, kw_only=True)
class ReadPanel:
    """What reading the pixels cost."""

    requests: int
    opens: int
    retries: int
    requested: float
    needed: float
    chips: int

    @property
    def wasted(self) -> float:
        return max(0.0, self.requested - self.needed)

    @property
    def overhead(self) -> float | None:
        return self.requested / self.needed if self.needed else None


def bands(folder: Folder) -> list[BandLine]:
    """Band statistics of the card."""
    return [
        BandLine(
            name=(row.text("name") or "?").replace("_", " "),
            mean=row.number("mean"),
            std=row.number("std"),
            nonpositive=row.number("share_nonpositive"),
            count=row.count("count"),
        )
        for row in folder.card.part("store").rows("bands")
    ]


def reading(folder: Folder) -> ReadPanel | None:
    """What reading cost; None before pixels were read."""
    read = folder.card.part("read")
    requested, needed = read.number("bytes_requested"), read.number("bytes_needed")
    if requested is None or needed is None:
        return None
    return ReadPanel(
        requests=read.count("requests") or 0,
        opens=read.count("opens") or 0,
        retries=read.count("retries") or 0,
        requested=requested,
        needed=needed,
        chips=written_chips(folder) or 0,
    )


def projection(folder: Folder) -> list[tuple[str, str]]:
    """What the plan expects the run to need."""
    facts = folder.card.part("projection")
    lines = (
        ("granules to screen", facts.number("granules_to_screen"), words.number),
        ("bytes to read in screening", facts.number("screening_bytes"), words.size),
        ("requests for blocks of pixels", facts.number("block_requests"), words.number),
        ("bytes of pixels to read", facts.number("read_bytes"), words.size),
        ("bytes to write", facts.number("write_bytes"), words.size),
        ("memory of one worker", facts.number("memory_bytes"), words.size),
        ("time", facts.number("seconds"), words.duration),
    )
    return [(name, tell(value)) for name, value, tell in lines if value is not None]


def seconds(folder: Folder) -> list[tuple[str, float, str]]:
    """(stage, share of the longest, time in words)."""
    facts = folder.card.part("seconds")
    times = [(stage, facts.number(stage)) for stage in facts.values]
    longest = max((value for _, value in times if value is not None), default=0.0) or 1.0
    return [(stage, value / longest, words.duration(value)) for stage, value in times if value is not None]


def versions(folder: Folder) -> list[tuple[str, str]]:
    """Versions of what touched pixels."""
    facts = folder.card.part("versions")
    return [(name, facts.text(name) or "?") for name in facts.values]


def digests(folder: Folder) -> list[tuple[str, str]]:
    """Checksums that name the plan, the response and the store."""
    card = folder.card
    found = [("plan", card.part("plan").text("digest")), ("store", card.part("store").text("digest"))]
    found += [(name, value) for name, value in folder.commits.items()]
    return [(name, value) for name, value in found if value]


def verification(folder: Folder) -> tuple[bool, str, list[str]] | None:
    """(ok, sentence, problems); None where nothing was verified."""
    facts = folder.card.part("verify")
    ok = facts.values.get("ok")
    if not isinstance(ok, bool):
        return None
    checked = words.size(facts.number("checked_bytes"))
    problems = [str(problem) for problem in facts.items("problems")]
    sentence = f"{checked} were read back from the disk and compared with the checksums of what was written: "
    return ok, sentence + ("all agree." if ok else f"{words.count_of(len(problems), 'problem')} found."), problems


def tombstones(folder: Folder) -> list[tuple[str, str]]:
    """(unit, cause) of the drawn units whose pixels could not be read."""
    rows = folder.card.part("store").rows("tombstones")
    found = [(row.text("unit") or "?", row.text("cause") or "no cause given") for row in rows]
    if found or folder.samples is None:
        return found
    pairs = zip(folder.samples["unit"].to_pylist(), folder.samples["state"].to_pylist(), strict=True)
    return [(str(unit), str(state)) for unit, state in pairs if state != "written"]
