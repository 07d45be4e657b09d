"""The sources of land cover and weather that have a name: what they are, whose, on which terms, and how to read them.

Addresses are in geofm_pipeline.access.services; `--land-cover` and `--weather` take the names below besides paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.services import Services
from geofm_pipeline.covariates.weather_steps import USUAL, Habits
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.years import Years

NOTHING = "none"
"""The word for no land cover or no weather."""


@dataclass(frozen=True, kw_only=True)
class NamedSource:
    """One source."""

    name: str
    """The word of the option."""
    option: str
    title: str
    licence: str
    citation: str
    note: str = ""
    """What a user should know of its use here; '' if nothing."""
    cost: str = ""
    """What reading it takes, where that is much: said before it is read."""
    login: str = ""
    """What to do where it refuses the login, '' where it asks for none."""
    habits: Habits = USUAL
    """Of the time steps of weather."""


WORLDCOVER = NamedSource(
    name="worldcover",
    option="--land-cover",
    title="ESA WorldCover 10 m",
    licence="CC BY 4.0, © ESA WorldCover project, contains modified Copernicus Sentinel data",
    citation="Zanaga et al. (2022), ESA WorldCover 10 m 2021 v200, doi:10.5281/zenodo.7254221; "
    "Zanaga et al. (2021), ESA WorldCover 10 m 2020 v100, doi:10.5281/zenodo.5571936",
    note="a static map: what differs between 2020 and 2021 is the algorithm, not change on the ground",
)
IO_LULC = NamedSource(
    name="io-lulc",
    option="--land-cover",
    title="Impact Observatory annual land use and land cover, 10 m, 9 classes",
    licence="CC BY 4.0, Impact Observatory, Microsoft and Esri",
    citation="Karra et al. (2021), Global land use/land cover with Sentinel-2 and deep learning, IGARSS 2021, "
    "doi:10.1109/IGARSS47720.2021.9553499",
)
TERRACLIMATE = NamedSource(
    name="terraclimate",
    option="--weather",
    title="TerraClimate, 1/24°, monthly",
    licence="CC0 1.0",
    citation="Abatzoglou et al. (2018), TerraClimate, Scientific Data 5:170191, doi:10.1038/sdata.2017.191",
    habits=Habits(stand_in_years=5),
)
ARCO_ERA5 = NamedSource(
    name="arco-era5",
    option="--weather",
    title="ARCO-ERA5, 0.25°, hourly",
    licence="Copernicus licence, contains modified Copernicus Climate Change Service information",
    citation="Carver & Merose (2023), ARCO-ERA5, 22nd Conf. on AI for Environmental Science; "
    "Hersbach et al. (2020), The ERA5 global reanalysis, doi:10.1002/qj.3803",
    note="means of a sample of its hours",
    cost="338 files of about 2.3 MB for each year, whatever the region",
    # 87 h = 3 d 15 h and 37 h = 1 d 13 h go through the hours of the day: eight temperatures a month, three hours of
    # the day apart, and twenty of precipitation, which varies more. 8766/87 + 8766/37 = 338 chunks, each of one hour
    # of the whole globe, at 2.3 MB: 0.78 GB a year. Whole years would be 40 GB.
    habits=Habits(
        variables={"t": "2m_temperature", "p": "total_precipitation"}, every_h={"t": 87, "p": 37}, stand_in_years=1
    ),
)
ERA5_LAND = NamedSource(
    name="era5-land",
    option="--weather",
    title="ERA5-Land, 0.1°, from the Earth Data Hub",
    licence="CC BY 4.0, contains modified Copernicus Climate Change Service information",
    citation="Muñoz-Sabater et al. (2021), ERA5-Land, Earth System Science Data 13, doi:10.5194/essd-13-4349-2021",
    login="it needs a personal access token of the Earth Data Hub, in EARTHDATAHUB_TOKEN or as the password of its "
    "host in ~/.netrc, on every worker",
    # Its chunks hold weeks of hours, so leaving hours out would save nothing.
    habits=Habits(variables={"t": "t2m", "p": "tp"}, day_sums=True, stand_in_years=1),
)
ALL = (WORLDCOVER, IO_LULC, TERRACLIMATE, ARCO_ERA5, ERA5_LAND)


def named_source(option: str, word: str) -> NamedSource | None:
    """The source that an option's value names, None for a path or URL; `./worldcover` is a path."""
    return next((source for source in ALL if source.option == option and source.name == word), None)


def source_names(option: str) -> list[str]:
    """Words that an option takes besides paths."""
    return [*(source.name for source in ALL if source.option == option), NOTHING]


def described(option: str, asked: str) -> str:
    """A source for a line on the terminal, before it is read."""
    source = named_source(option, asked)
    if source is None:
        return asked
    return f"{asked} ({source.title})" + (f": {source.cost}" if source.cost else "")


def weather_address(source: NamedSource, services: Services) -> str:
    """Address of the Zarr of a named source of weather."""
    return {
        TERRACLIMATE.name: services.terraclimate,
        ARCO_ERA5.name: services.arco_era5,
        ERA5_LAND.name: services.era5_land,
    }[source.name]


_TERMS = ("name", "option", "title", "licence", "citation", "note")


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """What the card keeps of a named source that was used."""

    source: NamedSource
    address: str
    """Of the Zarr, or of the files with their place in braces."""
    years_used: tuple[int, ...]
    years_lacking: tuple[int, ...]
    """Requested years that the source does not have."""
    absent_files: int = 0
    """Files that there are none of: open sea."""

    @property
    def sentence(self) -> str:
        """For the user: what is used, and on which terms."""
        source = self.source
        used = f" of {Years(years=self.years_used)}" if self.years_used else ""
        lacking = f"; it has nothing of {Years(years=self.years_lacking)}" if self.years_lacking else ""
        note = f"; {source.note}" if source.note else ""
        what = source.option.removeprefix("--").replace("-", " ")
        return f"{what}: {source.title}{used}{lacking}{note}. Licence: {source.licence}. Cite: {source.citation}."

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            **{name: getattr(self.source, name) for name in _TERMS},
            "address": self.address,
            "years_used": list(self.years_used),
            "years_lacking": list(self.years_lacking),
            "absent_files": self.absent_files,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SourceRecord:
        """Inverse of :meth:`as_dict`; terms are those of today."""
        source = named_source(record["option"], record["name"])
        assert source is not None, record["name"]
        return cls(
            source=source,
            address=record["address"],
            years_used=tuple(record["years_used"]),
            years_lacking=tuple(record["years_lacking"]),
            absent_files=record["absent_files"],
        )


@contextmanager
def explained(option: str, asked: str) -> Iterator[None]:
    """Turn a FetchError inside into an ArchiveError that names the source and the choice to go on without it."""
    try:
        yield
    except FetchError as error:
        raise ArchiveError(cannot_read(option, asked, error)) from error


def cannot_read(option: str, asked: str, error: FetchError) -> str:
    """The message for bytes of a source that cannot be had."""
    source = named_source(option, asked)
    name = f"{option} {asked}" if source is None else f"{option} {asked} ({source.title})"
    if error.fault in (Fault.LOGIN, Fault.EXPIRED) and source is not None and source.login:
        remedy = f"{source.login}; or go on without it: {option} {NOTHING}"
    elif error.transient:
        remedy = f"run the same line again later, which goes on where this ended, or without it: {option} {NOTHING}"
    elif error.fault == Fault.NO_RANGES:
        remedy = f"download the file and give its path, or go on without it: {option} {NOTHING}"
    else:
        remedy = f"correct the address, name another source, or go on without it: {option} {NOTHING}"
    return f"{name} cannot be read: {error.cause}; {remedy}"
