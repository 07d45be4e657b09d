"""card.json: what a run was asked, found, drew and wrote, for machines; the report is made from it.

One section per stage, written as soon as the stage is done, so that an interrupted run has a card too:

- `asked`: the options; `command`: the line that reproduces the dataset, that of the first run that was no dry run;
  `commands`: every different one that the folder has seen, in order; `versions`: of everything that touches pixels
- `inputs`: region name and bbox, years, catalogue, land cover and weather with their notes
- `search`: granules by sensor and tile, first and last day, missing assets
- `frame`: cells, units, area, over- and under-coverage of the ownership rule, ground declared out of the frame
- `plan`: design and digest; `projection`: requests, bytes and memory that the run will need
- `screening`: granules read, bytes, granules refused with their cause
- `response`: looked at, observable, drawn; units by state; the strata table
- `read`: requests and bytes, wanted and wasted; `store`: samples, bytes, tombstones with cause, band statistics
- `access`: how archives were reached, and by stage the requests, those repeated and reads given up, by cause
- `verify`: what verification found; `said`: every sentence that the run told the user; `seconds`: per stage
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path

from geofm_pipeline.access.tally import Tally
from geofm_pipeline.addresses import scrubbed, shown_in
from geofm_pipeline.workspace import write_text

_PACKAGES = ("geofm", "numpy", "pyarrow", "zarr", "numcodecs", "rasterio", "dask", "distributed", "xarray", "scipy")


class Card:
    """The card of one dataset folder; a section set again replaces the old one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sections = _read(path)

    def set(self, section: str, value: object) -> None:
        """Set one section (plain JSON values) and write the card."""
        self._sections[section] = scrubbed(value)
        write_text(self._path, json.dumps(self._sections, indent=1) + "\n")

    def ran(self, command: str, *, dry_run: bool) -> None:
        """Note the command line of a run that starts; one that ended before its plan left nothing and is forgotten."""
        kept = self._sections.get("commands") if "plan" in self._sections else None
        known: list[dict[str, object]] = list(kept) if isinstance(kept, list) else []
        command = shown_in(command)
        if all(run["line"] != command for run in known):
            known.append({"line": command, "dry_run": dry_run})
        self._sections["command"] = next((run for run in known if not run["dry_run"]), known[0])["line"]
        self.set("commands", known)

    def section(self, name: str) -> dict[str, object]:
        """A section of named values, empty when its stage has not run yet."""
        found = self._sections.get(name)
        return dict(found) if isinstance(found, Mapping) else {}

    def say(self, sentence: str) -> bool:
        """Keep a sentence for the user; False when it was said before."""
        said = self._sections.get("said")
        sentences: list[object] = list(said) if isinstance(said, list) else []
        sentence = shown_in(sentence)
        if sentence in sentences:
            return False
        self.set("said", [*sentences, sentence])
        return True

    def reached(self, stage: str, tally: Tally, *, whole: bool = False) -> None:
        """Count what a stage's reads took; a continued stage adds up, unless `tally` is already of the whole stage."""
        section = self.section("access")
        found = section.get("stages")
        stages = dict(found) if isinstance(found, Mapping) else {}
        before = Tally() if whole else Tally.from_dict(stages.get(stage, {}))
        total = before + tally
        if total.requests or total.failures:
            self.set("access", {**section, "stages": {**stages, stage: total.as_dict()}})

    def took(self, stage: str, seconds: float) -> None:
        """Note how long a stage took; a continued stage adds up."""
        times = self.section("seconds")
        before = times.get(stage)
        times[stage] = round(seconds + (before if isinstance(before, float) else 0.0), 3)
        self.set("seconds", times)


def _read(path: Path) -> dict[str, object]:
    """The sections of a card; none where it is missing or was cut short, since nothing depends on it."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that touch pixels."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}
