"""From a dataset folder to report.html: panels, template, one file written at once."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from geofm_pipeline.report import costs, request, words
from geofm_pipeline.report.claims import claims
from geofm_pipeline.report.contact import MOST_DATES, ChipCard, contact_sheet
from geofm_pipeline.report.dates import dates_panel
from geofm_pipeline.report.diagnosis import diagnose
from geofm_pipeline.report.evenness import evenness_panel
from geofm_pipeline.report.folder import Folder, read_folder
from geofm_pipeline.report.headline import badge, funnel, headline, title
from geofm_pipeline.report.heldout import heldout_panel, split_map
from geofm_pipeline.report.information import information_panel
from geofm_pipeline.report.maps import RAMP, maps, sheet_of
from geofm_pipeline.report.network import network, network_said
from geofm_pipeline.report.probabilities import weights_panel
from geofm_pipeline.report.screening import screening_panel
from geofm_pipeline.report.selfcheck import selftest_panel
from geofm_pipeline.report.strata import strata_panel
from geofm_pipeline.report.tradeoff import tradeoff_panel
from geofm_pipeline.report.waves import WaveLine, wave_lines
from geofm_pipeline.workspace import Workspace, write_text

_HERO = 9
"""Pictures in the band at the top."""
_MOST_LISTED = 40
"""Tombstones and problems listed one by one."""


def render_report(root: Path) -> Path:
    """Write `report.html` of a dataset folder and return its path.

    Reads the folder only and changes nothing else in it. What a stage that has not run would have left is said to be
    missing; a part that is damaged is named. Costs a few seconds; the page stays below 4 MB for any size of dataset.

    Raises
    ------
    ResourceError
        When the page cannot be written.
    """
    path = Workspace(root=root).report
    write_text(path, render(read_folder(root)))
    return path


def render(folder: Folder) -> str:
    """The page as HTML; the same folder gives the same page."""
    strata, dates, sheet = strata_panel(folder), dates_panel(folder), contact_sheet(folder)
    found, ground = diagnose(folder), sheet_of(folder)
    commands, wrote = request.commands(folder)
    lost = costs.tombstones(folder)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            style=Markup(_asset("report.css")),  # our own file, not data
            title=title(folder),
            badge=badge(folder),
            figures=headline(folder, strata, dates.mean_clear if dates else None),
            hero=_hero(sheet.chips if sheet else []),
            funnel=funnel(folder),
            commands=commands,
            wrote=wrote,
            waves=_waves(folder),
            asked=request.asked(folder),
            inputs=request.inputs_table(folder),
            notes=request.notes(folder),
            maps=maps(folder, ground),
            ramp=RAMP,
            strata=strata,
            dates=dates,
            sheet=sheet,
            screening=screening_panel(folder),
            weights=weights_panel(folder),
            averages=found.averages,
            claims=claims(folder, found),
            observable=found.observable,
            evenness=evenness_panel(found),
            selftest=selftest_panel(found),
            tradeoff=tradeoff_panel(found),
            information=information_panel(folder, found),
            heldout=heldout_panel(folder),
            split_map=split_map(folder, ground) if ground is not None else None,
            bands=costs.bands(folder),
            bands_without=costs.bands_without(folder),
            spectrum=costs.spectrum(costs.bands(folder)),
            reading=costs.reading(folder),
            network=network(folder),
            network_said=network_said(folder),
            projection=costs.projection(folder),
            projected_wave=max(folder.records) if len(folder.records) > 1 else None,
            tombstones=lost[:_MOST_LISTED],
            tombstones_total=len(lost),
            verification=costs.verification(folder),
            versions=costs.versions(folder),
            digests=costs.digests(folder),
            seconds=costs.seconds(folder),
            glossary=words.GLOSSARY,
            most_listed=_MOST_LISTED,
        )
    )


def _waves(folder: Folder) -> Sequence[WaveLine]:
    """One line per wave; none for a dataset of a single one."""
    return wave_lines(folder) if len(folder.waves) > 1 else []


def _hero(chips: Sequence[ChipCard]) -> list[str]:
    """The clearest date of each chip of the sheet, then the next, for the band at the top; none if they are too few."""
    ranked = [sorted(chip.views, key=lambda view: -view.share) for chip in chips]
    chosen = [views[turn].picture for turn in range(MOST_DATES) for views in ranked if turn < len(views)]
    return chosen[:_HERO] if len(chosen) >= _HERO else []


def _asset(name: str) -> str:
    return (files("geofm_pipeline.report") / name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "percent": words.percent,
        "share": words.share,
        "size": words.size,
        "finite": words.finite,
    }
    return environment
