"""What a catalogue says about an item, whatever its dialect: id, cloud cover, footprint, absolute hrefs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import shapely
from shapely.errors import GEOSException
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.lonlat import polygons, unrolled


@dataclass(frozen=True, kw_only=True)
class CatalogItem:
    """One item as a dialect found it, not yet judged: it may be no HLS granule at all."""

    id: str
    cloud_cover: float
    """`eo:cloud_cover` in percent, NaN where the item does not say."""
    geometry: BaseGeometry | None
    """As given, EPSG:4326; None where absent or unreadable."""
    assets: Mapping[str, str]
    """Asset key → absolute path or URL."""


def item_from_json(feature: Mapping[str, object], *, base: str) -> CatalogItem:
    """Item of a STAC GeoJSON feature; relative hrefs are resolved against `base`, a path or URL of a file."""
    properties = mapping(feature.get("properties"))
    assets = mapping(feature.get("assets"))
    return CatalogItem(
        id=str(feature.get("id", "")),
        cloud_cover=number(properties.get("eo:cloud_cover")),
        geometry=_geometry(feature.get("geometry"), feature.get("bbox")),
        assets={
            key: absolute_href(href, base)
            for key, asset in assets.items()
            if isinstance(href := mapping(asset).get("href"), str)
        },
    )


def absolute_href(href: str, base: str) -> str:
    """Absolute path or URL of an href in the file `base`.

    >>> absolute_href("./a/B04.tif", "/data/items.json")
    '/data/a/B04.tif'
    >>> absolute_href("a/B04.tif", "https://host/x/items.json")
    'https://host/x/a/B04.tif'
    """
    scheme = urlsplit(href).scheme
    if scheme == "file":
        return unquote(urlsplit(href).path)
    if len(scheme) > 1:  # one letter is a Windows drive
        return href
    if is_url(base):
        return urljoin(base, href)
    return os.path.normpath(Path(base).absolute().parent / href)


def is_url(text: str) -> bool:
    """True for http and https addresses."""
    return urlsplit(text).scheme in {"http", "https"}


def number(value: object) -> float:
    """A float of a number or numeric text (CMR writes both), NaN for anything else."""
    try:
        return float(value) if isinstance(value, (int, float, str)) else float("nan")
    except ValueError:
        return float("nan")


def mapping(value: object) -> Mapping[str, object]:
    """The value if it is a mapping, else an empty one: items of strangers hold anything."""
    return value if isinstance(value, Mapping) else {}


def repaired(geometries: list[BaseGeometry | None]) -> list[BaseGeometry | None]:
    """Footprints as valid polygons split at the antimeridian, exteriors counter-clockwise; None where nothing is left.

    Good plain polygons, which nearly all are, take the short way through vectorised calls.
    """
    array = np.array(geometries, dtype=object)
    flat = np.asarray(shapely.force_2d(array))
    bounds = shapely.bounds(flat)
    with np.errstate(invalid="ignore"):
        narrow = (bounds[:, 2] - bounds[:, 0] <= 180) & (bounds[:, 0] >= -180) & (bounds[:, 2] <= 180)
    good = shapely.is_valid(flat) & (shapely.get_type_id(flat) == _POLYGON) & ~shapely.is_empty(flat) & narrow
    oriented = flat.copy()
    oriented[good] = shapely.orient_polygons(flat[good])
    return [ready if fine else _repaired(geometry) for ready, fine, geometry in zip(oriented, good, flat, strict=True)]


_POLYGON = int(shapely.GeometryType.POLYGON)


def _repaired(geometry: BaseGeometry | None) -> BaseGeometry | None:
    if geometry is None:
        return None
    try:
        fixed = polygons(unrolled(geometry))
    except (GEOSException, ValueError):
        return None
    if fixed.is_empty:
        return None
    return fixed.geoms[0] if len(fixed.geoms) == 1 else fixed


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
