"""The top of the page: where the folder stands, the headline figures and the funnel from frame to chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from geofm_pipeline.report import words
from geofm_pipeline.report.folder import Folder, with_state
from geofm_pipeline.report.ground import HELD_OUT, NEITHER
from geofm_pipeline.report.strata import StrataPanel
from geofm_pipeline.report.waves import asked_in_all, empty_waves, planned_waves, unfinished_waves


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A headline figure."""

    value: str
    """The figure in words."""
    label: str
    """What it counts."""
    note: str = ""
    """What it should be compared with."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the funnel."""

    name: str
    """What happened, e.g. `looked at`."""
    count: int
    """Units."""
    meaning: str
    """The same in plain words."""
    share: float | None = None
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
    if later := [number for number in unfinished_waves(folder) if number > 1]:
        said = f"Wave {later[0]} is unfinished: its command continues it. What was written before stays as it is."
        return Badge(kind="open", words=said)
    if verified.values.get("ok") is True:
        read = words.size(verified.number("checked_bytes"))
        planned = "".join(f" Wave {number} is planned only." for number in planned_waves(folder))
        return Badge(kind="good", words=f"Complete and verified: {read} were read back and compared.{planned}")
    if card.part("store").values.get("complete") is True or folder.samples is not None:
        return Badge(kind="open", words="Written, not verified yet: run geofm-sample verify on this folder.")
    if folder.samples is None and folder.answered and len(empty_waves(folder)) == len(folder.answered):
        said = "Nothing observable was found: no chip was drawn or written."
    elif folder.response is not None:
        said = "Unfinished: the sample is drawn, its pixels are not all written. The same command continues."
    elif folder.frame_units:
        said = "Planned only: no image of the archive was read. What follows is the plan."
    else:
        said = "Just begun: this folder holds no plan yet."
    return Badge(kind="open", words=said)


def headline(folder: Folder, strata: StrataPanel | None, mean_clear: float | None) -> list[Figure]:
    """The figures at the top; what is unknown is left out."""
    clear = words.percent(mean_clear) if mean_clear is not None else None
    found = (
        _chips_figure(folder),
        _ground_figure(folder),
        _strata_figure(strata),
        Figure(value=clear, label="clear pixels", note="mean over all dates of all chips") if clear else None,
        _bytes_figure(folder),
    )
    return [figure for figure in found if figure is not None]


def written_chips(folder: Folder) -> int | None:
    """Chips whose pixels are in the store; None while samples.parquet is not there."""
    if folder.samples is None:
        return None
    return int(with_state(folder.samples, "written").num_rows)


def _chips_figure(folder: Folder) -> Figure | None:
    asked = asked_in_all(folder)
    note = f"{words.number(asked)} asked for" if asked is not None else ""
    if (written := written_chips(folder)) is not None:
        if folder.has_heldout and folder.samples is not None:
            held = with_state(folder.samples_of(HELD_OUT), "written").num_rows
            note = ", ".join(filter(None, (note, f"{words.number(held)} written ones for evaluation only")))
        return Figure(value=words.number(written), label="chips written", note=note)
    if folder.places is not None:
        return Figure(value=words.number(folder.places.num_rows), label="chips drawn", note=note)
    if asked is not None:
        return Figure(value=words.number(asked), label="chips asked for", note="none drawn yet")
    return None


def _ground_figure(folder: Folder) -> Figure | None:
    cells = folder.cells
    if cells is None or not cells.ground.size:
        return None
    area = words.number(float(cells.area_km2.sum()))
    return Figure(value=f"{area} km²", label="of ground in the frame", note=words.count_of(cells.ground.size, "place"))


def _strata_figure(strata: StrataPanel | None) -> Figure | None:
    if strata is None:
        return None
    if strata.effective is None:
        return Figure(value=words.number(strata.count), label="strata", note="land cover × climate × season")
    note = f"of {words.number(strata.count)}: how evenly kinds of ground and seasons are filled"
    return Figure(value=words.number(strata.effective, 1), label="effective strata", note=note)


def _bytes_figure(folder: Folder) -> Figure | None:
    sizes = [store.bytes for store in folder.facts.values() if store.complete]
    stored = sum(sizes) if sizes else folder.card.part("store").number("bytes")
    if stored is not None:
        stores = f", {len(sizes)} stores" if len(sizes) > 1 else ""
        return Figure(value=words.size(stored), label="on disk", note=f"losslessly compressed{stores}")
    planned = folder.card.part("projection").number("write_bytes")
    return Figure(value=words.size(planned), label="to be written", note="projected") if planned is not None else None


def funnel(folder: Folder) -> list[Step]:
    """From the frame to the written chips, as far as the run went."""
    if not folder.frame_units:
        return []
    steps = [_framed(folder)]
    if folder.first_look is not None:
        steps.append(Step(name="planned", count=folder.first_look, meaning=_MEANING["planned"]))
    if folder.response is not None:
        steps += _response_steps(folder.response)
    if folder.samples is not None and (written := written_chips(folder)) is not None:
        if failed := folder.samples.num_rows - written:
            steps[-1] = replace(steps[-1], losses=[("their pixels could not be read", failed)])
        steps.append(Step(name="written", count=written, meaning=_MEANING["written"]))
    before = [None, *(step.count for step in steps[:-1])]
    return [replace(step, share=step.count / last if last else None) for step, last in zip(steps, before, strict=True)]


def _framed(folder: Folder) -> Step:
    """All units of the frame; those of buffer ground go no further."""
    buffer = sum(folder.units_of(NEITHER).values())
    return Step(
        name="framed",
        count=sum(folder.groups.values()),
        meaning=_MEANING["framed"],
        losses=[("lie in the buffer around held-out blocks and take no part", buffer)] if buffer else (),
    )


_MEANING = {
    "framed": "squares of ground × seasons that could be drawn",
    "planned": "picked by chance to be looked at first",
    "looked at": "the quality masks of their images were read; more than planned where too few were clear",
    "observable": "enough clear dates at the right intervals",
    "drawn": "picked by chance among the observable",
    "written": "chips in the store",
}


def _response_steps(response: pa.Table) -> list[Step]:
    states = {entry["values"]: int(entry["counts"]) for entry in response["state"].value_counts().to_pylist()}
    drawn = states.get("drawn", 0)
    counts = {"looked at": response.num_rows, "observable": drawn + states.get("observable", 0), "drawn": drawn}
    lost = [(said, states[key]) for key, said in words.STATE_WORDS.items() if states.get(key)]
    return [
        Step(name=name, count=count, meaning=_MEANING[name], losses=lost if name == "looked at" else ())
        for name, count in counts.items()
    ]
