"""What a catalogue says about items, whatever its dialect: ids, cloud cover, footprints, absolute hrefs, by column."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from shapely.errors import GEOSException
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.addresses import shown, well_formed

_BATCH = 4096
"""Items of one batch made from JSON."""


@dataclass(frozen=True, kw_only=True)
class CatalogItem:
    """One item as a JSON dialect found it, not yet judged: it may be no HLS granule at all."""

    id: str
    cloud_cover: float
    """`eo:cloud_cover` in percent, NaN where the item does not say."""
    geometry: BaseGeometry | None
    """As given, EPSG:4326; None where absent or unreadable."""
    assets: Mapping[str, str]
    """Asset key → absolute path or URL, never empty."""


@dataclass(frozen=True, kw_only=True)
class ItemBatch:
    """Some items by column, not yet judged; every column has one value per item."""

    ids: pa.Array
    """Strings."""
    cloud_cover: NDArray[np.float64]
    """Percent, NaN where unknown."""
    geometry: NDArray[np.object_]
    """Shapely geometries as given, EPSG:4326; None where absent or unreadable."""
    assets: Mapping[str, pa.Array]
    """Asset key → absolute hrefs, null where the item lacks the asset, never empty."""


def batched(items: Iterable[CatalogItem], size: int = _BATCH) -> Iterator[ItemBatch]:
    """Batches of items of a JSON dialect, in order."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield _batch(some)


def _batch(items: Sequence[CatalogItem]) -> ItemBatch:
    geometry = np.empty(len(items), dtype=object)
    geometry[:] = [item.geometry for item in items]
    keys = dict.fromkeys(key for item in items for key in item.assets)
    return ItemBatch(
        ids=pa.array([item.id for item in items], pa.string()),
        cloud_cover=np.array([item.cloud_cover for item in items], dtype=np.float64),
        geometry=geometry,
        assets={key: pa.array([item.assets.get(key) for item in items], pa.string()) for key in keys},
    )


def item_from_json(feature: Mapping[str, object], *, base: str) -> CatalogItem:
    """Item of a STAC GeoJSON feature; relative hrefs are resolved against `base`, a path or URL of a file."""
    properties = mapping(feature.get("properties"))
    assets = mapping(feature.get("assets"))
    return CatalogItem(
        id=_encodable(str(feature.get("id", ""))),
        cloud_cover=number(properties.get("eo:cloud_cover")),
        geometry=_geometry(feature.get("geometry"), feature.get("bbox")),
        assets={
            key: absolute_href(href, base)
            for key, asset in assets.items()
            if isinstance(href := mapping(asset).get("href"), str) and href
        },
    )


def _encodable(text: str) -> str:
    """The text without lone surrogates, which JSON can express and Arrow cannot."""
    return text.encode(errors="replace").decode()


def absolute_href(href: str, base: str) -> str:
    """Absolute path or URL of an href in the file `base`, whose user, password and query are not passed on.

    >>> absolute_href("./a/B04.tif", "/data/items.json")
    '/data/a/B04.tif'
    >>> absolute_href("a/B04.tif", "https://host/x/items.json")
    'https://host/x/a/B04.tif'
    """
    href = _encodable(href)
    if not well_formed(href):
        return href  # its read will say so, with the granule
    scheme = urlsplit(href).scheme
    if scheme == "file":
        return unquote(urlsplit(href).path)
    if len(scheme) > 1:  # one letter is a Windows drive
        return href
    if is_url(base):
        return urljoin(shown(base), href)
    if base.startswith(("s3://", "gs://")):  # schemes that urljoin does not know
        return base.partition("://")[0] + urljoin("http" + base[base.index("://") :], href)[4:]
    return os.path.normpath(Path(base).absolute().parent / href)


def is_url(text: str) -> bool:
    """True for http and https addresses."""
    return urlsplit(text).scheme in {"http", "https"}


def is_remote(text: str) -> bool:
    """True for everything that the access layer fetches over a network: http, https, s3 and gs."""
    return urlsplit(text).scheme in {"http", "https", "s3", "gs"}


def number(value: object) -> float:
    """A float of a number or numeric text (CMR writes both), NaN for anything else."""
    try:
        return float(value) if isinstance(value, (int, float, str)) else float("nan")
    except ValueError:
        return float("nan")


def mapping(value: object) -> Mapping[str, object]:
    """The value if it is a mapping, else an empty one: items of strangers hold anything."""
    return value if isinstance(value, Mapping) else {}


def _geometry(geojson: object, bbox: object) -> BaseGeometry | None:
    try:
        if isinstance(geojson, Mapping) and geojson:
            return shape(dict(geojson))
        if isinstance(bbox, (list, tuple)) and len(bbox) >= 4:
            west, south, east, north = (float(bbox[i]) for i in (0, 1, len(bbox) // 2, len(bbox) // 2 + 1))
            return box(west, south, east if west <= east else east + 360, north)
    except (GEOSException, ValueError, TypeError, AttributeError, KeyError, IndexError):
        return None
    return None
