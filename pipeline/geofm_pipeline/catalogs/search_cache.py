"""Searches of services kept on disk, so that the same question is not asked twice.

A file is named by a digest of all that decides the answer: catalogue, addresses of services, region, years, version of
the program. Files appear whole; one that cannot be read is as good as none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geofm_pipeline.catalogs.request import Request
from geofm_pipeline.catalogs.rows import with_facts
from geofm_pipeline.errors import ResourceError
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.workspace import write_parquet

FORMAT = 1
"""Rises when the same question would be answered otherwise by a newer program of the same version."""
_ADDRESSES = ("geoparquet", "cmr", "cmr_stac", "planetary_computer")
_KEY = b"geofm_search"


class SearchCache:
    """The kept searches of a folder, for one request."""

    def __init__(self, folder: Path, catalog: str, request: Request) -> None:
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
        self._request.say(
            f"catalogue: {table.num_rows:,} granules as searched on {when:%Y-%m-%d %H:%M} UTC, kept in {self.path}; "
            "--refresh searches anew"
        )
        metadata = {name: value for name, value in table.schema.metadata.items() if name != _KEY}
        return with_facts(table.replace_schema_metadata(metadata), {"cached": when.isoformat(timespec="seconds")})

    def save(self, table: pa.Table) -> None:
        """Keep a table; a disk that refuses is said and costs nothing but the next search."""
        try:
            marked = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: self._key.encode()})
            write_parquet(self.path, marked)
        except (OSError, ResourceError) as error:
            self._request.say(f"catalogue: the search could not be kept for another run ({error})")


def _question(catalog: str, request: Request) -> Mapping[str, object]:
    services = asdict(request.access.services)
    return {
        "catalog": catalog,
        "addresses": {name: services[name] for name in _ADDRESSES},
        "buckets": services["buckets"],
        "region": hashlib.sha256(shapely.to_wkb(request.region.geometry)).hexdigest(),
        "tiles": request.region.tiles,
        "years": str(request.years),
        "program": f"{importlib.metadata.version('geofm')}-{FORMAT}",
    }
