"""The services with a name, and `auto`, which asks them in turn until one answers completely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from geofm_pipeline.catalogs import cmr, months, stac_api
from geofm_pipeline.catalogs.items import batched
from geofm_pipeline.catalogs.request import LATER, Request
from geofm_pipeline.catalogs.rows import scene_table, with_facts
from geofm_pipeline.errors import ArchiveError, NothingFoundError

AUTO = "auto"
ORDER = ("geoparquet", "cmr", "cmr-stac", "planetary-computer")
"""Services in the order in which `auto` asks them."""
NAMES = (AUTO, *ORDER)
_ATTEMPTS = 4
"""Tries per request while there is another service to ask: some seconds of waits instead of minutes."""


def search_named(name: str, request: Request) -> pa.Table:
    """SceneTable of a service by name, `auto` included; its metadata say `service` and what was `tried` before it.

    Raises
    ------
    ArchiveError
        When the service, or with `auto` every service, cannot be searched completely.
    NothingFoundError
        When a complete search found nothing.
    """
    return _search_auto(request) if name == AUTO else _search_one(name, request)


def _search_auto(request: Request) -> pa.Table:
    tried: list[dict[str, str]] = []
    brisk = replace(request.access, attempts=min(_ATTEMPTS, request.access.attempts))
    request = replace(request, access=brisk)  # notes and listener are the same
    for name, following in zip(ORDER, (*ORDER[1:], None), strict=True):
        kept_notes = list(request.notes)
        try:
            return with_facts(_search_one(name, request), {"tried": tried})
        except ArchiveError as error:
            tried.append({"service": name, "why": str(error).removesuffix(LATER)})
        except NothingFoundError as error:
            # The GeoParquet archive lacks about 1 % of what CMR has, so only its empty answer is no answer.
            if name != ORDER[0]:
                raise
            tried.append({"service": name, "why": str(error)})
        request.notes[:] = kept_notes
        if following is not None:
            request.say(f"catalogue: {name} was skipped, because {tried[-1]['why']}")
            request.say(f"catalogue: asking {following} instead")
    reasons = " | ".join(f"{skip['service']}: {skip['why']}" for skip in tried)
    raise ArchiveError(
        f"no catalogue service could be searched; check the network and its proxy, run the same command later, or name "
        f"a catalogue of your own by --catalog. {reasons}"
    )


def _search_one(name: str, request: Request) -> pa.Table:
    found = _SEARCHES[name](request)
    request.say(f"catalogue: {name} was searched, {found.num_rows:,} granules")
    return with_facts(found, {"service": name, "tried": [], "notes": list(request.notes)})


def _geoparquet(request: Request) -> pa.Table:
    archive = months.MonthlyArchive(request)
    return scene_table(
        archive.batches(),
        source=request.access.services.geoparquet,
        dialect=months.DIALECT,
        region=request.region,
        years=request.years,
        known_extent=archive.extent,
    )


def _cmr(request: Request) -> pa.Table:
    return scene_table(
        batched(cmr.cmr_items(request)),
        source=request.access.services.cmr,
        dialect=cmr.DIALECT,
        region=request.region,
        years=request.years,
        known_extent=lambda: "it was searched completely and has none there",
    )


def _cmr_stac(request: Request) -> pa.Table:
    return stac_api.search_api(request.access.services.cmr_stac, request, both=True)


def _planetary_computer(request: Request) -> pa.Table:
    return stac_api.search_api(request.access.services.planetary_computer, request, both=True)


_SEARCHES: dict[str, Callable[[Request], pa.Table]] = {
    "geoparquet": _geoparquet,
    "cmr": _cmr,
    "cmr-stac": _cmr_stac,
    "planetary-computer": _planetary_computer,
}
