"""ItemCollection JSON: one GeoJSON FeatureCollection of STAC items in a file or at a URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from geofm_pipeline.addresses import shown
from geofm_pipeline.catalogs.items import CatalogItem, item_from_json
from geofm_pipeline.errors import ArchiveError

DIALECT = "ItemCollection"


def collection_items(document: Mapping[str, object], *, base: str) -> Iterator[CatalogItem]:
    """Items of a parsed FeatureCollection; `base` is the path or URL it came from."""
    features = document.get("features")
    if not isinstance(features, list):
        raise ArchiveError(
            f"{shown(base)} calls itself a FeatureCollection but has no list of features: the file is damaged"
        )
    for feature in features:
        if isinstance(feature, Mapping):
            yield item_from_json(feature, base=base)
