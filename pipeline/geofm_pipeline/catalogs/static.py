"""Static STAC catalogues: JSON files that link to one another, on disk or on a web server, read with pystac.

Costs one read per item, so large archives are better given as STAC GeoParquet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pystac
from pystac.stac_io import RetryStacIO

from geofm_pipeline.catalogs.items import CatalogItem, item_from_json
from geofm_pipeline.errors import ArchiveError

DIALECT = "static STAC catalogue"


def static_items(href: str) -> Iterator[CatalogItem]:
    """All items below a Catalog or Collection file, depth first in the order of the links."""
    try:
        top = pystac.read_file(href, stac_io=RetryStacIO())
        if isinstance(top, pystac.Item):
            yield _item(top, href)
            return
        if not isinstance(top, pystac.Catalog):
            raise ArchiveError(f"{href} is a STAC {type(top).__name__}, not a catalogue of items")
        for item in top.get_items(recursive=True):
            yield _item(item, item.get_self_href() or href)
    except (pystac.STACError, pystac.STACTypeError, OSError, ValueError, KeyError) as error:
        raise ArchiveError(
            f"the static catalogue {href} cannot be read to its end: {error}; check that the files it links to are "
            f"there and are JSON, then run again"
        ) from error


def _item(item: pystac.Item, base: str) -> CatalogItem:
    return item_from_json(item.to_dict(include_self_link=False, transform_hrefs=False), base=base)
