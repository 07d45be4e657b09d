"""The opened files behind `--weather`: of a path, an address, two by a comma, or a source with a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import xarray as xr

from geofm_pipeline.access.services import Services
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.covariates.gridded import open_gridded
from geofm_pipeline.covariates.named_sources import explained, named_source, weather_address
from geofm_pipeline.covariates.weather_steps import OPTION, USUAL, Habits
from geofm_pipeline.covariates.weather_variables import source_files


def source_addresses(source: str, services: Services) -> list[str]:
    """The one or two files of a source, as paths or addresses."""
    named = named_source(OPTION, source)
    return source_files(source) if named is None else [weather_address(named, services)]


@contextmanager
def opened_weather(source: str, archive: ArchiveSource) -> Iterator[tuple[list[xr.Dataset], Habits]]:
    """The files of a source, lazily and undecoded, and what must be known besides; closed at the end.

    Raises
    ------
    InputError
        When nothing is there, or it is no grid.
    ArchiveError
        When it is there but cannot be read.
    """
    named = named_source(OPTION, source)
    with ExitStack() as closing:
        datasets = []
        for file in source_addresses(source, archive.access.services):
            with explained(OPTION, source):
                datasets.append(open_gridded(file, option=OPTION, archive=archive, asked=source))
            closing.callback(datasets[-1].close)
        yield datasets, USUAL if named is None else named.habits
