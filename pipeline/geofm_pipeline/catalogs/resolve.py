"""Choose the dialect of a catalogue by its name or by looking at it, and search it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.remote_file import RemoteFile
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.addresses import shown, well_formed
from geofm_pipeline.catalogs import geoparquet, itemcollection, stac_api, static
from geofm_pipeline.catalogs.items import CatalogItem, ItemBatch, batched, is_remote, item_from_json
from geofm_pipeline.catalogs.named import NAMES, search_named
from geofm_pipeline.catalogs.request import Request, answering
from geofm_pipeline.catalogs.rows import scene_table
from geofm_pipeline.catalogs.search_cache import SearchCache
from geofm_pipeline.errors import ArchiveError, InputError
from geofm_pipeline.region import Region
from geofm_pipeline.years import Years

_KINDS = (
    f"one of {', '.join(NAMES)}, a STAC GeoParquet file or folder, an ItemCollection or static catalogue (.json), or "
    "the URL of a STAC API"
)
_PARQUET = b"PAR1"
"""How every Parquet file starts."""


def find_scenes(
    catalog: str,
    region: Region,
    years: Years,
    *,
    access: Access | None = None,
    cache: Path | None = None,
    refresh: bool = False,
    progress: Callable[[str], None] | None = None,
    counted: Callable[[Tally], None] | None = None,
) -> pa.Table:
    """SceneTable of the HLS v2.0 granules of a catalogue that touch the region in the years.

    Parameters
    ----------
    catalog : `geoparquet`, `cmr`, `cmr-stac` or `planetary-computer`; `auto` for the first of these that answers; or a
        path or URL whose dialect follows from its content: a folder with catalog.json or a JSON Catalog or Collection
        is a static catalogue, a FeatureCollection an ItemCollection, Parquet (file or folder) STAC GeoParquet, a
        landing page with a search link a STAC API
    access : addresses and patience
    cache : folder where searches over a network are kept for the next run; None keeps nothing, and a server on this
        machine is asked each time
    refresh : search anew even if the answer is kept
    progress : takes whole sentences

    Returns
    -------
    SCENES; the schema metadata `geofm` say where it is from and what was skipped, of a named service also `service`,
    `tried` (who was asked before and why in vain) and `notes` (what the service lacks), and of a kept answer `cached`.

    Raises
    ------
    InputError
        When there is nothing at `catalog` or it is no catalogue.
    ArchiveError
        When a catalogue cannot be read to its end.
    NothingFoundError
        When it holds nothing for the request; says what it holds.
    """
    request = Request(region=region, years=years, access=access or Access(), say=progress or (lambda _: None))
    if not well_formed(catalog):
        raise InputError(f"catalogue {catalog} is no address: its host or port cannot be; correct it, or give {_KINDS}")
    if catalog not in NAMES and not is_remote(catalog):
        return _from_path(catalog, request)
    try:
        return _from_network(catalog, request, cache, refresh)
    finally:  # also of a search that fails
        if counted is not None:
            counted(request.tally)


def _from_network(catalog: str, request: Request, cache: Path | None, refresh: bool) -> pa.Table:
    kept = None if cache is None or _is_here(catalog) else SearchCache(cache, catalog, request)
    found = None if kept is None or refresh else kept.load()
    if found is None:
        found = search_named(catalog, request) if catalog in NAMES else _from_url(catalog, request)
        if kept is not None:
            kept.save(found)
    return found


def _is_here(catalog: str) -> bool:
    """Whether a URL is of this machine, where a port is no name that lasts."""
    host = urlsplit(catalog).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _from_path(catalog: str, request: Request) -> pa.Table:
    path = Path(catalog).expanduser()
    if path.is_dir() and (path / "catalog.json").is_file():
        path = path / "catalog.json"
    if not path.exists():
        raise InputError(f"catalogue {catalog} does not exist: give {_KINDS}")
    if path.is_dir() or "parquet" in path.suffix.lower():
        batches = geoparquet.folder_batches(path, region=request.region, years=request.years)
        return _parquet_table(batches, str(path), request, lambda: geoparquet.folder_extent(path))
    text = path.read_text(encoding="utf-8", errors="replace")
    return _from_json(_parsed(text, catalog), str(path.absolute()), request)


def _from_url(url: str, request: Request) -> pa.Table:
    if "parquet" in urlsplit(url).path.rpartition(".")[2].lower():
        return _from_parquet_url(url, request)
    with answering(f"catalogue {shown(url)}"):
        content = request.source.read_all(url)
    if content.startswith(_PARQUET):
        return _opened_parquet(pa.BufferReader(content), url, request)
    document = _parsed(content.decode(errors="replace"), url)
    links = document.get("links")
    searchable = isinstance(links, list) and any(
        isinstance(link, Mapping) and link.get("rel") == "search" for link in links
    )
    if document.get("type") == "FeatureCollection" or not searchable:
        return _from_json(document, url, request)
    return stac_api.search_api(url, request)


def _from_parquet_url(url: str, request: Request) -> pa.Table:
    """By ranges; as a whole where the server has none."""
    with answering(f"catalogue {shown(url)}"):
        try:
            file = RemoteFile(request.source, url)
        except FetchError as error:
            if error.fault != Fault.NO_RANGES:
                raise
            return _fetched_parquet(url, request)
        return _opened_parquet(pa.PythonFile(file, mode="r"), url, request)


def _fetched_parquet(url: str, request: Request) -> pa.Table:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        path.write_bytes(request.source.read_all(url))
        with pa.OSFile(str(path)) as file:
            return _opened_parquet(file, url, request)


def _opened_parquet(file: pa.NativeFile, url: str, request: Request) -> pa.Table:
    batches = geoparquet.file_batches(file, region=request.region, years=request.years, base=url)
    return _parquet_table(batches, url, request, lambda: geoparquet.file_extent(file))


def _parquet_table(
    batches: Iterable[ItemBatch], source: str, request: Request, known_extent: Callable[[], str]
) -> pa.Table:
    return scene_table(
        batches,
        source=source,
        dialect=geoparquet.DIALECT,
        region=request.region,
        years=request.years,
        known_extent=known_extent,
        progress=request.say,
    )


def _from_json(document: Mapping[str, object], base: str, request: Request) -> pa.Table:
    match document.get("type"):
        case "FeatureCollection":
            dialect, items = itemcollection.DIALECT, itemcollection.collection_items(document, base=base)
        case "Feature":
            single: list[CatalogItem] = [item_from_json(document, base=base)]
            dialect, items = "STAC item", iter(single)
        case "Catalog" | "Collection":
            dialect, items = static.DIALECT, static.static_items(base, request.source)
        case kind:
            raise InputError(f"catalogue {shown(base)} is JSON of type {kind!r}: give {_KINDS}")
    return scene_table(
        batched(items),
        source=base,
        dialect=dialect,
        region=request.region,
        years=request.years,
        progress=request.say,
    )


def _parsed(text: str, source: str) -> Mapping[str, object]:
    source = shown(source)
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
