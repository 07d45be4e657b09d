"""Options to the things they name: region, years, and where catalogue, land cover and weather are read from."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geofm_pipeline.access.settings import Access
from geofm_pipeline.addresses import well_formed
from geofm_pipeline.catalogs.named import AUTO, NAMES
from geofm_pipeline.config import SampleConfig
from geofm_pipeline.covariates.gridded import is_gridded
from geofm_pipeline.covariates.named_sources import NOTHING, TERRACLIMATE, WORLDCOVER, NamedSource, source_names
from geofm_pipeline.covariates.weather_variables import source_files
from geofm_pipeline.errors import InputError
from geofm_pipeline.progress import Progress
from geofm_pipeline.region import Region, parse_region
from geofm_pipeline.user_cache import user_cache
from geofm_pipeline.years import Years, parse_years

DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads."""

    region: Region
    years: Years
    catalog: str
    """Path or URL of the catalogue, or the name of a service (geofm_pipeline.catalogs.named)."""
    land_cover: str | None
    """Path, URL or name of a source (geofm_pipeline.covariates.named_sources), None without a land-cover map."""
    weather: str | None
    """Path, URL or name of a source, None without weather."""
    legend: str | None = None
    """Legend of the land cover (geofm_pipeline.covariates.legends); None recognises it."""
    access: Access = field(default_factory=Access)
    """How archives are reached."""
    cache: Path | None = None
    """Folder where what was read of named sources is kept for other runs, None for none."""
    said: tuple[str, ...] = ()
    """Why land cover and weather are what they are, where the user did not say."""


def resolve_inputs(config: SampleConfig, access: Access, progress: Progress) -> Inputs:
    """Resolve the options; the demo's archive is made here when it is used for the first time.

    Raises
    ------
    InputError
        When an option cannot be right; land cover and weather are looked at before anything is searched or made.
    """
    years = parse_years(config.years)
    if config.catalog is not None and not config.catalog.strip():  # an empty variable of a shell, most of the time
        raise InputError(f"--catalog is empty: give {', '.join(NAMES)}, a path or a URL, or leave it out for {AUTO}")
    check_source(config.land_cover, WORLDCOVER.option, [config.land_cover or ""])
    check_source(config.weather, TERRACLIMATE.option, source_files(config.weather or "") or [""])
    if config.region.strip().lower() == DEMO:
        return _demo_inputs(config, years, access, progress)
    catalog = config.catalog or AUTO
    land_cover, why_cover = resolve_source(config.land_cover, WORLDCOVER, catalog)
    weather, why_weather = resolve_source(config.weather, TERRACLIMATE, catalog)
    return Inputs(
        region=parse_region(config.region),
        years=years,
        catalog=catalog,
        land_cover=land_cover,
        weather=weather,
        legend=config.land_cover_legend,
        access=access,
        cache=user_cache(),
        said=tuple(filter(None, (why_cover, why_weather))),
    )


def resolve_source(asked: str | None, default: NamedSource, catalog: str) -> tuple[str | None, str]:
    """A source of land cover or weather, and what the user should know of the choice.

    What was asked for; else the default with a catalogue of the whole archive; else nothing, since a catalogue of
    the user's own may be of a place without a network.
    """
    if asked is not None:
        return (None if asked.strip().lower() == NOTHING else asked), ""
    if catalog in NAMES:
        return default.name, ""
    names = ", ".join(source_names(default.option))
    return None, f"no {default.option} (a catalogue of your own brings no default): it takes {names} or a path."


def check_source(asked: str | None, option: str, parts: Sequence[str]) -> None:
    """Refuse what is neither a word of an option nor, in all its parts, a URL or something that is there.

    Raises
    ------
    InputError
        With what the option takes, and the word that was probably meant.
    """
    words = source_names(option)
    if asked is None or asked in words or asked.strip().lower() == NOTHING:
        return
    wrong = next((part for part in parts if not well_formed(part)), None)
    if wrong is not None:
        raise InputError(f"{option} {wrong} is no address: its host or port cannot be; correct it, or give a path")
    patterns = option == WORLDCOVER.option
    absent = next((part for part in parts if "://" not in part and not _is_there(part, patterns)), None)
    if absent is None:
        return
    # Options come with their paths made absolute (geofm_pipeline.options): the word is the last part.
    meant = difflib.get_close_matches(Path(absent).name.lower(), words, n=1)
    guess = f"; did you mean {option} {meant[0]}?" if meant else ""
    raise InputError(
        f"{option} {absent or repr(absent)} does not exist: it takes {', '.join(words)}, a URL, or the path of "
        f"something that is there{' (a pattern must match a file)' if patterns else ''}{guess}"
    )


def _is_there(text: str, patterns: bool) -> bool:
    """Whether a local path exists or a pattern of rasters matches; what may not be looked at is left to its reader."""
    if not text.strip():
        return False
    try:
        path = Path(text).expanduser()
        if path.exists() or not patterns or is_gridded(text):
            return path.exists()
        return any(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    except PermissionError:
        return True
    except (OSError, RuntimeError, ValueError):  # a name too long, a user without a home, a pattern that is none
        return False


def _demo_inputs(config: SampleConfig, years: Years, access: Access, progress: Progress) -> Inputs:
    from geofm_pipeline.simulator import DEMO_REGION, demo_archive

    archive = demo_archive(progress=progress.say)
    box = parse_region(",".join(str(edge) for edge in DEMO_REGION))
    land_cover, _ = resolve_source(config.land_cover or str(archive.land_cover), WORLDCOVER, "")
    weather, _ = resolve_source(config.weather or str(archive.weather), TERRACLIMATE, "")
    return Inputs(
        region=Region(name=DEMO, geometry=box.geometry, tiles=None),
        years=years,
        catalog=config.catalog or str(archive.items),
        land_cover=land_cover,
        weather=weather,
        legend=config.land_cover_legend,
        access=access,
        cache=user_cache(),
    )
