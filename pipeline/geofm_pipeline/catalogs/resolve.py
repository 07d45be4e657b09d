"""Choose the dialect of a catalogue by looking at it, and search it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import requests
from requests.adapters import HTTPAdapter

from geofm_pipeline.catalogs import geoparquet, itemcollection, stac_api, static
from geofm_pipeline.catalogs.items import CatalogItem, is_url, item_from_json
from geofm_pipeline.catalogs.rows import scene_table
from geofm_pipeline.errors import ArchiveError, InputError
from geofm_pipeline.region import Region
from geofm_pipeline.years import Years

_TIMEOUT_S = (20.0, 120.0)
_KINDS = "a STAC GeoParquet file or folder, an ItemCollection or static catalogue (.json), or the URL of a STAC API"
_PARQUET = b"PAR1"
"""How every Parquet file starts."""


def find_scenes(
    catalog: str, region: Region, years: Years, *, progress: Callable[[str], None] | None = None
) -> pa.Table:
    """SceneTable of the HLS v2.0 granules of a catalogue that touch the region in the years.

    Parameters
    ----------
    catalog : path or URL; its dialect follows from its content: a folder with catalog.json or a JSON Catalog or
        Collection is a static catalogue, a FeatureCollection an ItemCollection, Parquet (file or folder) STAC
        GeoParquet, a landing page with a search link a STAC API; a Parquet file behind a URL is fetched whole

    Raises
    ------
    InputError
        When there is nothing at `catalog` or it is no catalogue.
    ArchiveError
        When a catalogue cannot be read to its end.
    NothingFoundError
        When it holds nothing for the request; says what it holds.
    """
    if is_url(catalog):
        return _from_url(catalog, region, years, progress)
    path = Path(catalog).expanduser()
    if path.is_dir() and (path / "catalog.json").is_file():
        path = path / "catalog.json"
    if path.is_dir() or "parquet" in path.suffix.lower():
        return _from_parquet(path, region, years, progress)
    if not path.is_file():
        raise InputError(f"catalogue {catalog} does not exist: give {_KINDS}")
    text = path.read_text(encoding="utf-8", errors="replace")
    return _from_json(_parsed(text, catalog), str(path.absolute()), region, years, progress)


def _from_parquet(
    path: Path, region: Region, years: Years, progress: Callable[[str], None] | None, *, base: str | None = None
) -> pa.Table:
    if not path.exists():
        raise InputError(f"catalogue {path} does not exist: give {_KINDS}")
    items = geoparquet.parquet_items(path, region=region, years=years, base=base)
    return scene_table(
        items,
        source=base or str(path),
        dialect=geoparquet.DIALECT,
        region=region,
        years=years,
        known_extent=lambda: geoparquet.parquet_extent(path),
        progress=progress,
    )


def _from_json(
    document: Mapping[str, object], base: str, region: Region, years: Years, progress: Callable[[str], None] | None
) -> pa.Table:
    match document.get("type"):
        case "FeatureCollection":
            dialect, items = itemcollection.DIALECT, itemcollection.collection_items(document, base=base)
        case "Feature":
            single: list[CatalogItem] = [item_from_json(document, base=base)]
            dialect, items = "STAC item", iter(single)
        case "Catalog" | "Collection":
            dialect, items = static.DIALECT, static.static_items(base)
        case kind:
            raise InputError(f"catalogue {base} is JSON of type {kind!r}: give {_KINDS}")
    return scene_table(items, source=base, dialect=dialect, region=region, years=years, progress=progress)


def _from_url(url: str, region: Region, years: Years, progress: Callable[[str], None] | None) -> pa.Table:
    content = _get(url)
    if content.startswith(_PARQUET):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "items.parquet"
            file.write_bytes(content)
            return _from_parquet(file, region, years, progress, base=url)
    document = _parsed(content.decode(errors="replace"), url)
    links = document.get("links")
    searchable = isinstance(links, list) and any(
        isinstance(link, Mapping) and link.get("rel") == "search" for link in links
    )
    if document.get("type") == "FeatureCollection" or not searchable:
        return _from_json(document, url, region, years, progress)
    api = stac_api.StacApi(url)
    return scene_table(
        api.items(region=region, years=years, progress=progress),
        source=url,
        dialect=stac_api.DIALECT,
        region=region,
        years=years,
        known_extent=api.extent,
        progress=progress,
    )


def _get(url: str) -> bytes:
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=stac_api.retry_policy()))
        try:
            response = session.get(url, timeout=_TIMEOUT_S)
            response.raise_for_status()
        except requests.RequestException as error:
            raise ArchiveError(
                f"catalogue {url} cannot be reached: {error}; check the address and the network, then run again"
            ) from error
        return response.content


def _parsed(text: str, source: str) -> Mapping[str, object]:
    start = text.lstrip()[:15].lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        raise ArchiveError(
            f"catalogue {source} is a web page, not JSON: a login or an error page came back; open the address in a "
            f"browser, or give {_KINDS}"
        )
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"catalogue {source} is not JSON ({error}): give {_KINDS}") from error
    if not isinstance(document, dict):
        raise InputError(f"catalogue {source} is a JSON {type(document).__name__}, not an object: give {_KINDS}")
    return document
