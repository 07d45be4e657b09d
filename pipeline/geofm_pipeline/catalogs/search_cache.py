"""Searches of services kept on disk, so that the same question is not asked twice.

A file is named by a digest of all that decides the answer: catalogue, addresses of services, region, years, version of
the program; addresses are in it by digest only, since they may hold secrets. Files appear whole; one that cannot be
read is as good as none, and so is an old one of a year that was not over. What `auto` got by a fallback is not kept.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geofm_pipeline.addresses import shown
from geofm_pipeline.catalogs.request import Request
from geofm_pipeline.catalogs.rows import facts, with_facts
from geofm_pipeline.errors import ResourceError
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.workspace import write_parquet

FORMAT = 2
"""Rises when the same question would be answered otherwise by a newer program of the same version."""
_ADDRESSES = ("geoparquet", "cmr", "cmr_stac", "planetary_computer")
_KEY = b"geofm_search"
_LATE = timedelta(days=60)
"""After its sensing a granule may still be published so much later."""
_KEEPS = timedelta(days=7)
"""How long a search is good whose years were not over when it was made: granules still come in."""


class SearchCache:
    """The kept searches of a folder, for one request; `today` (UTC) is an argument for tests."""

    def __init__(self, folder: Path, catalog: str, request: Request, *, today: date | None = None) -> None:
        self._today = today or datetime.now(UTC).date()
        self._key = json.dumps(_question(catalog, request), sort_keys=True)
        self._request = request
        self.path = folder / f"scenes-{hashlib.sha256(self._key.encode()).hexdigest()[:24]}.parquet"

    def load(self) -> pa.Table | None:
        """The kept table, whose metadata then say when it was searched (`cached`); None when there is none."""
        try:
            when = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
            table = pq.read_table(self.path)
            if (table.schema.metadata or {}).get(_KEY, b"").decode() != self._key:
                raise ValueError("it answers another question")
            SCENES.check(table)
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, ValueError) as error:
            self._request.say(f"catalogue: the kept search {self.path} cannot be read ({error}); searching anew")
            return None
        if self._is_stale(when.date()):
            self._request.say(
                f"catalogue: the kept search {self.path} is of {when:%Y-%m-%d}, when the years {self._request.years} "
                f"were not over, and older than {_KEEPS.days} days; searching anew"
            )
            return None
        self._request.say(
            f"catalogue: {table.num_rows:,} granules as searched on {when:%Y-%m-%d %H:%M} UTC, kept in {self.path}; "
            "--refresh searches anew"
        )
        metadata = {name: value for name, value in table.schema.metadata.items() if name != _KEY}
        return with_facts(table.replace_schema_metadata(metadata), {"cached": when.isoformat(timespec="seconds")})

    def _is_stale(self, made: date) -> bool:
        open_year = (made - _LATE).year  # granules of December are published in January, too
        return max(self._request.years.years) >= open_year and self._today - made > _KEEPS

    def save(self, table: pa.Table) -> None:
        """Keep a table; a disk that refuses is said and costs nothing but the next search."""
        if facts(table).get("tried"):
            self._request.say("catalogue: the search is not kept for another run, since a service was skipped")
            return
        try:
            marked = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: self._key.encode()})
            write_parquet(self.path, marked)
        except (OSError, ResourceError) as error:
            self._request.say(f"catalogue: the search could not be kept for another run ({error})")


def _question(catalog: str, request: Request) -> Mapping[str, object]:
    services = asdict(request.access.services)
    addresses = [catalog, *(services[name] for name in _ADDRESSES), services["buckets"]]
    return {
        "catalog": shown(catalog),
        "addresses": hashlib.sha256(json.dumps(addresses, sort_keys=True).encode()).hexdigest(),
        "region": hashlib.sha256(shapely.to_wkb(request.region.geometry)).hexdigest(),
        "tiles": request.region.tiles,
        "years": str(request.years),
        "program": f"{importlib.metadata.version('geofm')}-{FORMAT}",
    }
