"""Everything else on the page: headline, funnel, what was asked and said, probabilities, reading, versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from geofm_pipeline.report import words
from geofm_pipeline.report.facts import Facts
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


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Quantiles of a probability or weight over the drawn units."""

    name: str
    meaning: str
    low: str
    middle: str
    high: str


@dataclass(frozen=True, kw_only=True)
class WeightsPanel:
    """What the section on probabilities shows."""

    spreads: Sequence[Spread]
    deff: float | None
    """Kish's design effect of the weights."""
    claims: Sequence[str]
    """What may be said about the sample."""


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


def title(folder: Folder) -> str:
    """`demo, 2022–2023`."""
    inputs = folder.card.part("inputs")
    region = inputs.text("region") or folder.card.part("asked").text("region") or folder.root.resolve().name
    return ", ".join(filter(None, (region, _years(folder))))


def _years(folder: Folder) -> str:
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
    written, drawn = _written(folder), folder.places.num_rows if folder.places is not None else None
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


def _written(folder: Folder) -> int | None:
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
        states = dict(pc.value_counts(folder.response["state"]).to_pandas().itertuples(index=False)) if False else {
            entry["values"]: entry["counts"] for entry in pc.value_counts(folder.response["state"]).to_pylist()
        }
        lost = [(words.STATE_WORDS[key], states[key]) for key in words.STATE_WORDS if states.get(key)]
        drawn = states.get("drawn", 0)
        counts.append(("looked at", folder.response.num_rows, "quality masks of all their images read", lost))
        counts.append(("observable", drawn + states.get("observable", 0), "enough clear dates at the right intervals", ()))
        counts.append(("drawn", drawn, "picked by chance among the observable", ()))
    written = _written(folder)
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


def weights_panel(folder: Folder, strata: StrataPanel | None) -> WeightsPanel | None:
    """Probabilities and weights of the drawn units; None before the draw."""
    places = folder.places
    if places is None or not places.num_rows:
        return None
    spreads = [
        _spread("π₁", "chance to be looked at", places["pi1"].to_numpy()),
        _spread("π₂", "chance to be drawn, given the look", places["pi2_given_phase1"].to_numpy()),
        _spread("π*", "π₁ × π₂", places["pi_star"].to_numpy()),
    ]
    deff = None
    if folder.samples is not None:
        weight = folder.samples["weight_design"].to_numpy()
        weight = weight[weight > 0]
        spreads.append(_spread("weight", "units of the frame that one chip stands for", weight))
        deff = float(weight.size * (weight**2).sum() / weight.sum() ** 2) if weight.size else None
    return WeightsPanel(spreads=spreads, deff=deff, claims=_claims(folder, strata))


def _spread(name: str, meaning: str, values: np.ndarray) -> Spread:
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0]) if values.size else (np.nan,) * 3
    return Spread(
        name=name,
        meaning=meaning,
        low=words.probability(low),
        middle=words.probability(middle),
        high=words.probability(high),
    )


def _claims(folder: Folder, strata: StrataPanel | None) -> list[str]:
    """What is published, in the words that hold; no more than that."""
    claims = ["Every unit of the frame had a known, non-zero chance to be looked at."]
    totals = "Weighted totals describe the observable population, unbiased before raking and trimming (this version does neither)"
    if strata is not None and strata.empty:
        totals += f", for the strata that have chips: {words.count_of(len(strata.empty), 'stratum', 'strata')} have none"
    claims.append(totals + ".")
    if folder.samples is not None and (failed := folder.samples.num_rows - (_written(folder) or 0)):
        claims.append(
            f"{words.count_of(failed, 'drawn unit')} could not be read; the others of the same stratum carry their "
            "weight, as if failures struck at random within it."
        )
    claims += [
        "The same seed and the same frame give the same sample, however many workers ran.",
        "The first ranks of each stratum's draw are themselves valid, spatially balanced samples.",
        "Clouds keep some units from being observed; the toll is shown for each stratum. The weights for the full frame "
        "(weight_full) assume that, within a stratum, units are missing at random.",
        "The weights undo the balance between strata: estimates need them, training goes without them by default.",
    ]
    return claims


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
        chips=_written(folder) or 0,
    )


def asked(folder: Folder) -> list[tuple[str, str]]:
    """The options, as they were given."""
    options = folder.card.part("asked")
    known = ((name, options.text(name)) for name in options.values)
    return [(f"--{name.replace('_', '-')}", value) for name, value in known if value not in (None, "None")]


def notes(folder: Folder) -> list[str]:
    """What the run said, with what the card knows and nobody said."""
    card = folder.card
    said = [str(sentence) for sentence in card.part_items("said")]
    inputs, search, frame = card.part("inputs"), card.part("search"), card.part("frame")
    if inputs and not inputs.text("weather") and not any("weather" in sentence for sentence in said):
        said.append("No weather was given: strata know no climate, and seasons are calendar quarters.")
    if inputs and not inputs.text("land_cover") and not any("land cover" in sentence.lower() for sentence in said):
        said.append("No land cover was given: strata know no land-cover groups.")
    if missing := search.count("missing_assets"):
        said.append(f"{words.count_of(missing, 'file')} of the granules found are missing in the archive.")
    if empty := frame.count("out_of_frame_cells"):
        said.append(f"{words.count_of(empty, 'place')} without any land cover were declared out of the frame.")
    return list(dict.fromkeys([*said, *folder.troubles]))


def inputs_table(folder: Folder) -> list[tuple[str, str]]:
    """What the run worked from."""
    inputs, search, frame = (folder.card.part(name) for name in ("inputs", "search", "frame"))
    lines: list[tuple[str, str | None]] = [
        ("region", _region(inputs)),
        ("years", _years(folder) or None),
        ("catalogue", inputs.text("catalog")),
        ("land cover", " — ".join(filter(None, (inputs.text("land_cover"), inputs.text("land_cover_note"))))),
        ("weather", " — ".join(filter(None, (inputs.text("weather"), inputs.text("weather_note"))))),
        ("images found", _found(search)),
        ("ownership of ground", _ownership(frame)),
    ]
    return [(name, value) for name, value in lines if value]


def _region(inputs: Facts) -> str | None:
    box = [float(v) for v in inputs.items("bbox") if isinstance(v, (int, float))]
    if len(box) != 4:
        return inputs.text("region")
    west, south, east, north = (round(v, 2) for v in box)
    lon, lat = (f"{words.degrees(a, k)} to {words.degrees(b, k)}" for a, b, k in ((west, east, "lon"), (south, north, "lat")))
    return f"{inputs.text('region')} ({lon}, {lat})"


def _found(search: Facts) -> str | None:
    if (granules := search.count("granules")) is None:
        return None
    sensors = ", ".join(f"{words.number(n)} {name}" for name, n in sorted(search.counts("by_sensor").items()))
    tiles = words.count_of(len(search.items("tiles")), "tile")
    return f"{words.number(granules)} granules ({sensors}) of {tiles}, {search.text('first_day')} to {search.text('last_day')}"


def _ownership(frame: Facts) -> str | None:
    coverage = frame.part("coverage") or Facts(
        values={name: frame.values.get(f"covered_{name}") for name in ("once", "never", "twice")}
    )
    once, never, twice = (coverage.number(name) for name in ("once", "never", "twice"))
    if once is None:
        return None
    return (
        f"{words.percent(once)} of the ground is in the frame once, {words.percent(never)} never, {words.percent(twice)} "
        "twice (tiles overlap, and squares of neighbouring tiles do not line up)"
    )
