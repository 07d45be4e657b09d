"""Static STAC catalogues: JSON files that link to one another, on disk or behind a network, read with pystac.

Costs one read per item, so large archives are better given as STAC GeoParquet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pystac
from pystac.stac_io import DefaultStacIO

from geofm_pipeline.access.faults import FetchError
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.addresses import shown, shown_in
from geofm_pipeline.catalogs.items import CatalogItem, is_remote, item_from_json
from geofm_pipeline.errors import ArchiveError

DIALECT = "static STAC catalogue"


class _SourceIO(DefaultStacIO):
    """Reads files behind a network as everything else is read there: tried again, counted, paced."""

    def __init__(self, source: ArchiveSource) -> None:
        super().__init__()
        self._source = source

    def read_text_from_href(self, href: str) -> str:
        if not is_remote(href):
            return super().read_text_from_href(href)
        return self._source.read_all(href).decode()


def static_items(href: str, source: ArchiveSource) -> Iterator[CatalogItem]:
    """All items below a Catalog or Collection file, depth first in the order of the links."""
    try:
        top = pystac.read_file(href, stac_io=_SourceIO(source))
        if isinstance(top, pystac.Item):
            yield _item(top, href)
            return
        if not isinstance(top, pystac.Catalog):
            raise ArchiveError(f"{shown(href)} is a STAC {type(top).__name__}, not a catalogue of items")
        for item in top.get_items(recursive=True):
            yield _item(item, item.get_self_href() or href)
    except (pystac.STACError, pystac.STACTypeError, FetchError, OSError, ValueError, KeyError) as error:
        why = shown_in(str(error))
        raise ArchiveError(
            f"the static catalogue {shown(href)} cannot be read to its end: {why}; check that the files it links to "
            f"are there and are JSON, then run again"
        ) from error


def _item(item: pystac.Item, base: str) -> CatalogItem:
    return item_from_json(item.to_dict(include_self_link=False, transform_hrefs=False), base=base)
