"""What was asked, from what inputs, and what the run said about it."""

from __future__ import annotations

from geofm_pipeline.report import words
from geofm_pipeline.report.facts import Facts
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.headline import years
from geofm_pipeline.report.waves import wave_lines


def asked(folder: Folder) -> list[tuple[str, str]]:
    """The options, as they were given."""
    options = folder.card.part("asked")
    known = ((name, options.text(name)) for name in options.values)
    return [(f"--{name.replace('_', '-')}", value) for name, value in known if value not in (None, "None")]


def commands(folder: Folder) -> tuple[list[str], bool]:
    """(the lines that made the dataset, in order; whether they wrote pixels): dry runs count where nothing else ran."""
    runs = [(run.text("line"), run.values.get("dry_run") is True) for run in folder.card.rows("commands")]
    known = [(line, dry) for line, dry in runs if line is not None]
    wrote = [line for line, dry in known if not dry]
    if known:
        return wrote or [line for line, _ in known], bool(wrote)
    line = folder.card.text("command")
    return [line] if line is not None else [], True


def notes(folder: Folder) -> list[str]:
    """What the run said, with what the card knows and nobody said."""
    card = folder.card
    said = [str(sentence) for sentence in card.items("said")]
    inputs, search, frame = card.part("inputs"), card.part("search"), card.part("frame")
    if inputs and not inputs.text("weather") and not any("weather" in sentence for sentence in said):
        said.append("No weather was given: strata know no climate, and seasons are calendar quarters.")
    if inputs and not inputs.text("land_cover") and not any("land cover" in sentence.lower() for sentence in said):
        said.append("No land cover was given: strata know no land-cover groups.")
    if missing := search.count("missing_assets"):
        said.append(f"{words.count_of(missing, 'file')} of the granules found: missing in the archive.")
    if empty := frame.count("out_of_frame_cells"):
        said.append(f"{words.count_of(empty, 'place')} without any land cover were declared out of the frame.")
    said += [line.remark for line in wave_lines(folder) if line.remark]
    return list(dict.fromkeys([*said, *folder.troubles]))


def inputs_table(folder: Folder) -> list[tuple[str, str]]:
    """What the run worked from."""
    inputs, search, frame = (folder.card.part(name) for name in ("inputs", "search", "frame"))
    lines: list[tuple[str, str | None]] = [
        ("region", _region(inputs)),
        ("years", years(folder) or None),
        ("catalogue", _catalogue(inputs.text("catalog"), search.text("service"))),
        ("land cover", " — ".join(filter(None, (inputs.text("land_cover"), inputs.text("land_cover_note"))))),
        ("weather", " — ".join(filter(None, (inputs.text("weather"), inputs.text("weather_note"))))),
        ("images found", _found(search)),
        ("ownership of ground", _ownership(frame)),
    ]
    return [(name, value) for name, value in lines if value]


def _catalogue(asked: str | None, service: str | None) -> str | None:
    """What was asked for, and which service answered where that left the choice."""
    return asked if service in (None, asked) else f"{asked}: {service} answered"


def _region(inputs: Facts) -> str | None:
    box = [float(v) for v in inputs.items("bbox") if isinstance(v, (int, float))]
    if len(box) != 4:
        return inputs.text("region")
    west, south, east, north = (round(v, 2) for v in box)
    lon = f"{words.degrees(west, 'lon')} to {words.degrees(east, 'lon')}"
    lat = f"{words.degrees(south, 'lat')} to {words.degrees(north, 'lat')}"
    return f"{inputs.text('region')} ({lon}, {lat})"


def _found(search: Facts) -> str | None:
    if (granules := search.count("granules")) is None:
        return None
    sensors = ", ".join(f"{words.number(n)} {name}" for name, n in sorted(search.counts("by_sensor").items()))
    tiles = words.count_of(len(search.items("tiles")), "tile")
    days = f"{search.text('first_day')} to {search.text('last_day')}"
    return f"{words.number(granules)} granules ({sensors}) of {tiles}, {days}"


def _ownership(frame: Facts) -> str | None:
    coverage = frame.part("coverage") or Facts(
        values={name: frame.values.get(f"covered_{name}") for name in ("once", "never", "twice")}
    )
    once, never, twice = (coverage.number(name) for name in ("once", "never", "twice"))
    if once is None:
        return None
    return (
        f"{words.percent(once)} of the ground is in the frame once, {words.percent(never)} never, "
        f"{words.percent(twice)} twice (tiles overlap, and squares of neighbouring tiles do not line up)"
    )
