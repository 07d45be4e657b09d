"""Options to the things they name: region, years, and where catalogue, land cover and weather are read from."""

from __future__ import annotations

from dataclasses import dataclass

from geofm_pipeline.config import SampleConfig
from geofm_pipeline.errors import InputError
from geofm_pipeline.progress import Progress
from geofm_pipeline.region import Region, parse_region
from geofm_pipeline.years import Years, parse_years

DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads."""

    region: Region
    years: Years
    catalog: str
    """Path or URL of the catalogue."""
    land_cover: str | None
    """Path or URL, None without a land-cover map."""
    weather: str | None
    """Path or URL, None without weather."""
    legend: str | None = None
    """Legend of the land cover (geofm_pipeline.covariates.legends); None recognises it."""


def resolve_inputs(config: SampleConfig, progress: Progress) -> Inputs:
    """Resolve the options; the demo's archive is made here when it is used for the first time."""
    years = parse_years(config.years)
    if config.region.strip().lower() == DEMO:
        return _demo_inputs(config, years, progress)
    region = parse_region(config.region)
    if config.catalog is None:
        raise InputError(
            f"--region {config.region} needs --catalog: name a STAC catalogue, ItemCollection or STAC GeoParquet of "
            "HLS granules (path or URL) or a STAC API URL; only `--region demo` has an archive of its own"
        )
    return Inputs(
        region=region,
        years=years,
        catalog=config.catalog,
        land_cover=config.land_cover,
        weather=config.weather,
        legend=config.land_cover_legend,
    )


def _demo_inputs(config: SampleConfig, years: Years, progress: Progress) -> Inputs:
    from geofm_pipeline.simulator import DEMO_REGION, demo_archive

    archive = demo_archive(progress=progress.say)
    box = parse_region(",".join(str(edge) for edge in DEMO_REGION))
    return Inputs(
        region=Region(name=DEMO, geometry=box.geometry, tiles=None),
        years=years,
        catalog=config.catalog or str(archive.items),
        land_cover=config.land_cover or str(archive.land_cover),
        weather=config.weather or str(archive.weather),
        legend=config.land_cover_legend,
    )
