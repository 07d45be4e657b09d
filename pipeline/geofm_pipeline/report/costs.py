"""What the run read and wrote, what it took, and what it will take: bands, requests, projection, versions, seconds."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from geofm_pipeline.progress import duration
from geofm_pipeline.report import svg, words
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.stores import BandSums, training_sums
from geofm_pipeline.report.waves import card_wave, without_statistics, written_in
from geofm_pipeline.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class BandLine:
    """Statistics of one band over valid pixels of the training split."""

    name: str
    """Canonical name in words."""
    mean: float | None
    """Reflectance."""
    std: float | None
    """Standard deviation, reflectance."""
    nonpositive: float | None
    """Share of valid pixels with a value of 0 or below."""
    count: int | None
    """Valid pixels."""


@dataclass(frozen=True, kw_only=True)
class ReadPanel:
    """What reading the pixels cost."""

    requests: int
    """Range requests for blocks of pixels."""
    opens: int
    """Range requests for file headers."""
    retries: int
    """Requests repeated after transient faults."""
    requested: float
    """Bytes asked for."""
    needed: float
    """Bytes of the blocks that hold a wanted pixel."""
    kept: float | None
    """Bytes of the wave's store on disk."""
    chips: int
    """Written chips of the wave; 0 where it is not known."""
    wave: int | None
    """Wave that the figures are of, the last that wrote pixels; None where there is one wave only, or nothing tells."""
    waves: int
    """Waves of the dataset."""

    @property
    def wasted(self) -> float:
        """Bytes requested and not needed."""
        return max(0.0, self.requested - self.needed)

    @property
    def overhead(self) -> float | None:
        """Bytes requested per byte needed."""
        return self.requested / self.needed if self.needed else None


def bands(folder: Folder) -> list[BandLine]:
    """Statistics of all sealed stores together; those of the card where its one store says nothing."""
    sums = training_sums(folder.facts.values())
    if sums:
        scale = next(store.scale for store in folder.facts.values() if store.training)
        return [_band(name, band, scale) for name, band in sums.items()]
    if len(folder.waves) > 1:
        return []
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


def _band(name: str, sums: BandSums, scale: float) -> BandLine:
    """Mean and standard deviation from exact sums."""
    name = name.replace("_", " ")
    if not sums.count:
        return BandLine(name=name, mean=None, std=None, nonpositive=None, count=0)
    variance = (sums.squares * sums.count - sums.total**2) / sums.count**2
    return BandLine(
        name=name,
        mean=scale * sums.total / sums.count,
        std=scale * max(variance, 0.0) ** 0.5,
        nonpositive=sums.nonpositive / sums.count,
        count=sums.count,
    )


def bands_without(folder: Folder) -> str:
    """Waves that the band statistics leave out, in words; empty where they hold all."""
    left = [str(number) for number in without_statistics(folder)] if len(folder.waves) > 1 else []
    return f"wave{'s' if len(left) > 1 else ''} {', '.join(left)}" if left else ""


def spectrum(lines: list[BandLine]) -> Markup | None:
    """Mean of every band with one standard deviation up and down."""
    known = [(line.name, line.mean, line.std) for line in lines if line.mean is not None and line.std is not None]
    if not known:
        return None
    left, top, width, height = 46.0, 10.0, 440.0, 170.0
    marks = [mark / 10 for mark in svg.ticks(10 * max(mean + std for _, mean, std in known))]
    drawn: list[Markup] = []
    for mark in marks:
        y = top + height * (1 - mark / marks[-1])
        drawn += [svg.line(left, y, left + width, y, "grid"), svg.text(left - 6, y + 4, f"{mark:.1f}", anchor="end")]
    step = width / len(known)
    for i, (name, mean, std) in enumerate(known):
        x = left + (i + 0.5) * step
        low, middle, high = (top + height * (1 - max(v, 0.0) / marks[-1]) for v in (mean - std, mean, mean + std))
        said = svg.element("title", f"{name}: {mean:.4f} ± {std:.4f}")
        drawn += [svg.line(x, low, x, high, "spread"), svg.text(x, top + height + 18, name, anchor="middle")]
        drawn.append(svg.element("circle", said, cx=x, cy=middle, r=5.0, class_="mean"))
    drawn.append(svg.text(left, top + height + 40, "surface reflectance, mean ± one standard deviation"))
    return svg.picture(left + width + 10, top + height + 48, "Mean reflectance of each band", drawn)


def reading(folder: Folder) -> ReadPanel | None:
    """What reading cost; None before pixels were read."""
    read = folder.card.part("read")
    requested, needed = read.number("bytes_requested"), read.number("bytes_needed")
    if requested is None or needed is None:
        return None
    wave = card_wave(folder)
    store = folder.facts.get(wave) if wave is not None else None
    return ReadPanel(
        requests=read.count("requests") or 0,
        opens=read.count("opens") or 0,
        retries=read.count("retries") or 0,
        requested=requested,
        needed=needed,
        kept=store.bytes if store is not None and store.complete else folder.card.part("store").number("bytes"),
        chips=(written_in(folder, wave) or 0) if wave is not None else 0,
        wave=wave if len(folder.waves) > 1 else None,
        waves=len(folder.waves),
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
        ("time", facts.number("seconds"), duration),
    )
    return [(name, tell(value)) for name, value, tell in lines if value is not None]


def seconds(folder: Folder) -> list[tuple[str, float, str]]:
    """(stage, share of the longest, time in words)."""
    facts = folder.card.part("seconds")
    times = [(stage, facts.number(stage)) for stage in facts.values]
    longest = max((value for _, value in times if value is not None), default=0.0) or 1.0
    return [(stage, value / longest, duration(value)) for stage, value in times if value is not None]


def versions(folder: Folder) -> list[tuple[str, str]]:
    """Versions of what touched pixels."""
    facts = folder.card.part("versions")
    return [(name, facts.text(name) or "?") for name in facts.values]


def digests(folder: Folder) -> list[tuple[str, str]]:
    """Checksums that name every store, and every committed table of every wave."""
    stores = [
        (Workspace(root=folder.root, wave=number).store.name, store.digest) for number, store in folder.facts.items()
    ]
    known = [(name, value) for name, value in stores if value]
    noted = folder.card.part("store").text("digest")
    if noted and noted not in dict(known).values():
        known.append(("store.zarr" if len(folder.waves) == 1 else "the store written last", noted))
    # A name with this ending is what a table was about to become when a run stopped.
    return [*known, *((name, value) for name, value in folder.commits.items() if not name.endswith(".next"))]


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
    if folder.samples is None:
        rows = folder.card.part("store").rows("tombstones")
        return [(row.text("unit") or "?", row.text("cause") or "no cause given") for row in rows]
    pairs = zip(folder.samples["unit"].to_pylist(), folder.samples["state"].to_pylist(), strict=True)
    return [(str(unit), str(state)) for unit, state in pairs if state != "written"]
