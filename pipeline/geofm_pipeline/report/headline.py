"""The top of the page: where the folder stands, the headline figures and the funnel from frame to chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from geofm_pipeline.report import words
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.strata import StrataPanel


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A headline figure."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the funnel."""

    name: str
    count: int
    meaning: str
    share: float | None
    """Of the step before; None for the first."""
    losses: Sequence[tuple[str, int]] = ()
    """What was lost on the way to the next step, in words."""


@dataclass(frozen=True, kw_only=True)
class Badge:
    """Where the folder stands, in a sentence."""

    kind: str
    """`good`, `open` or `bad`."""
    words: str


def title(folder: Folder) -> str:
    """`demo, 2022–2023`."""
    inputs = folder.card.part("inputs")
    region = inputs.text("region") or folder.card.part("asked").text("region") or folder.root.resolve().name
    return ", ".join(filter(None, (region, years(folder))))


def years(folder: Folder) -> str:
    """The years asked for, e.g. `2019–2021, 2023`."""
    years = [int(y) for y in folder.card.part("inputs").items("years") if isinstance(y, int)]
    if not years:
        return folder.card.part("asked").text("years") or ""
    runs, start = [], years[0]
    for year, following in zip(years, [*years[1:], None], strict=True):
        if following != year + 1:
            runs.append(f"{start}" if start == year else f"{start}–{year}")
            start = following if following is not None else year
    return ", ".join(runs)


def badge(folder: Folder) -> Badge:
    """Dry run, unfinished, unverified, damaged or verified."""
    card = folder.card
    verified = card.part("verify")
    if verified.values.get("ok") is False:
        return Badge(kind="bad", words="Verification found damage: see below which samples are hit.")
    if verified.values.get("ok") is True:
        size = words.size(verified.number("checked_bytes"))
        return Badge(kind="good", words=f"Complete and verified: {size} were read back and compared.")
    if card.part("store").values.get("complete") is True or folder.samples is not None:
        return Badge(kind="open", words="Written, not verified yet: run geofm-sample verify on this folder.")
    if folder.response is not None:
        return Badge(kind="open", words="Unfinished: the sample is drawn, its pixels are not all written. The same command continues.")
    if folder.frame_units:
        return Badge(kind="open", words="Planned only: no image of the archive was read. What follows is the plan.")
    return Badge(kind="open", words="Just begun: this folder holds no plan yet.")


def headline(folder: Folder, strata: StrataPanel | None, median_clear: float | None) -> list[Figure]:
    """The figures at the top; what is unknown is left out."""
    card, figures = folder.card, list[Figure]()
    asked = card.part("response").count("asked") or card.part("plan").part("design").count("samples")
    written, drawn = written_chips(folder), folder.places.num_rows if folder.places is not None else None
    if written is not None:
        figures.append(Figure(value=words.number(written), label="chips written", note=f"{words.number(asked)} asked for"))
    elif drawn is not None:
        figures.append(Figure(value=words.number(drawn), label="chips drawn", note=f"{words.number(asked)} asked for"))
    elif asked is not None:
        figures.append(Figure(value=words.number(asked), label="chips asked for", note="none drawn yet"))
    if folder.cells is not None and folder.cells.ground.size:
        area, count = float(folder.cells.area_km2.sum()), folder.cells.ground.size
        figures.append(
            Figure(value=f"{words.number(area)} km²", label="of ground in the frame", note=words.count_of(count, "place"))
        )
    if strata is not None and strata.effective is not None:
        note = f"of {strata.count}: how evenly kinds of ground and seasons are filled"
        figures.append(Figure(value=f"{strata.effective:.1f}", label="effective strata", note=note))
    elif strata is not None:
        figures.append(Figure(value=str(strata.count), label="strata", note="land cover × climate × season"))
    if median_clear is not None:
        figures.append(Figure(value=words.percent(median_clear), label="clear pixels", note="median of all dates used"))
    stored = card.part("store").number("bytes")
    if stored is not None:
        figures.append(Figure(value=words.size(stored), label="on disk", note="losslessly compressed"))
    elif (volume := card.part("projection").number("write_bytes")) is not None:
        figures.append(Figure(value=words.size(volume), label="to be written", note="projected"))
    return figures


def written_chips(folder: Folder) -> int | None:
    """Chips whose pixels are in the store; None while samples.parquet is not there."""
    if folder.samples is None:
        return None
    return int(pc.sum(pc.equal(folder.samples["state"], "written")).as_py() or 0)


def funnel(folder: Folder) -> list[Step]:
    """From the frame to the written chips, as far as the run went."""
    if not folder.frame_units:
        return []
    counts: list[tuple[str, int, str, Sequence[tuple[str, int]]]] = [
        ("framed", sum(folder.frame_units.values()), "squares of ground × seasons that could be drawn", ())
    ]
    if folder.first_look is not None:
        counts.append(("planned", folder.first_look, "picked by chance to be looked at first", ()))
    if folder.response is not None:
        tally = pc.value_counts(folder.response["state"]).to_pylist()
        states = {entry["values"]: entry["counts"] for entry in tally}
        lost = [(words.STATE_WORDS[key], states[key]) for key in words.STATE_WORDS if states.get(key)]
        drawn = states.get("drawn", 0)
        counts.append(("looked at", folder.response.num_rows, "quality masks of all their images read", lost))
        counts.append(("observable", drawn + states.get("observable", 0), "enough clear dates at the right intervals", ()))
        counts.append(("drawn", drawn, "picked by chance among the observable", ()))
    written = written_chips(folder)
    if folder.samples is not None and written is not None:
        failed = folder.samples.num_rows - written
        if failed:
            name, count, meaning, _ = counts[-1]
            counts[-1] = (name, count, meaning, [("their pixels could not be read", failed)])
        counts.append(("written", written, "chips in the store", ()))
    before = [None, *(count for _, count, _, _ in counts[:-1])]
    return [
        Step(name=name, count=count, meaning=meaning, share=count / last if last else None, losses=losses)
        for (name, count, meaning, losses), last in zip(counts, before, strict=True)
    ]
