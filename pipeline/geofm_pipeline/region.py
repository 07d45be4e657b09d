"""Region: the ground a run may sample, from a bbox, a vector file, MGRS tile ids or a place name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.errors import InputError
from geofm_pipeline.lonlat import Box, polygons, search_boxes, tile_polygon, union, unrolled, wrapped

_TILE = re.compile(r"T?(\d{1,2})([C-X][A-Z]{2})", re.IGNORECASE)
_LIKE_TILE = re.compile(r"T?\d+[A-Z]\w*", re.IGNORECASE)
"""What somebody writes who means a tile; no country, state or continent is spelt so."""
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+|nan|inf\w*)(e[-+]?\d+)?\s*", re.IGNORECASE)
_VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".zip", ".fgb", ".kml", ".parquet", ".geoparquet", ".gml")
_DENSIFY = 200  # points along the longer side of a projected outline, whose straight edges are curves in lon/lat


@dataclass(frozen=True, kw_only=True)
class Region:
    """The ground a run may sample."""

    name: str
    """What the region is called in reports, e.g. `California, United States of America`."""
    geometry: MultiPolygon
    """EPSG:4326, longitudes in [-180, 180], split at the antimeridian, valid."""
    tiles: tuple[str, ...] | None = None
    """The tile ids when the region was given as such: then only these tiles are used; else None."""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """One or two (west, south, east, north) that hold the region without crossing the antimeridian."""
        return search_boxes(self.geometry)


def parse_region(text: str, *, cache: Path | None = None) -> Region:
    """Region of a bbox `W,S,E,N`, a vector file, MGRS tile ids or a place name.

    Parameters
    ----------
    text : west > east crosses the antimeridian; a file may be in any reference system that it declares, and its
        lon/lat outlines are taken as drawn (RFC 7946), beyond ±180 too; places are those of Natural Earth
    cache : folder for the outlines of places; None is cartopy's own

    Raises
    ------
    InputError
        With the value, the rule and the remedy.
    """
    text = text.strip()
    parts = [part.strip() for part in text.split(",")]
    if all(_NUMBER.fullmatch(part) for part in parts):
        return _from_numbers(text, parts)
    if all(_TILE.fullmatch(part) for part in parts):
        return _from_tiles(parts)
    path = Path(text).expanduser()
    if path.is_file() or path.suffix.lower() in _VECTOR_SUFFIXES:
        return _from_file(path)
    if not text:
        raise InputError("region is empty: give a bbox W,S,E,N, a vector file, MGRS tile ids or a place name")
    wrong = [part for part in parts if _LIKE_TILE.fullmatch(part) and not _TILE.fullmatch(part)]
    if wrong:
        raise InputError(
            f"region {text!r}: {wrong[0]} is no MGRS tile id, the number of a zone (1 to 60), the letter of its "
            "band (C to X) and the two letters of a square, e.g. 32TNR; several are separated by commas"
        )
    return _from_name(text, cache)


def _from_numbers(text: str, parts: list[str]) -> Region:
    rule = "a bbox is west,south,east,north in degrees, e.g. -10,40,5,50"
    if len(parts) != 4:
        raise InputError(f"region {text!r} has {len(parts)} numbers: {rule}")
    west, south, east, north = (float(part) for part in parts)
    if not all(math.isfinite(value) for value in (west, south, east, north)):
        raise InputError(f"region {text!r} holds a value that is not finite: {rule}")
    if max(abs(west), abs(east)) > 180 or max(abs(south), abs(north)) > 90:
        raise InputError(f"region {text!r} leaves longitude ±180 or latitude ±90: {rule}")
    if south >= north:
        raise InputError(f"region {text!r} has south {south:g} not below north {north:g}: {rule}")
    if west == east:
        raise InputError(f"region {text!r} has no width: {rule}; west > east crosses the antimeridian")
    boxes = [(west, east)] if west < east else [(west, 180.0), (-180.0, east)]
    drawn = [box(left, south, right, north) for left, right in boxes if left < right]
    return Region(name=f"bbox {west:g},{south:g},{east:g},{north:g}", geometry=polygons(MultiPolygon(drawn)))


def _from_tiles(parts: list[str]) -> Region:
    tiles = []
    for part in parts:
        match = _TILE.fullmatch(part)
        assert match is not None
        tiles.append(f"{int(match[1]):02d}{match[2].upper()}")
    tiles = sorted(set(tiles))
    try:
        outlines = [tile_polygon(tile) for tile in tiles]
    except ValueError as error:
        raise InputError(f"region {','.join(parts)!r}: {error}") from error
    named = ",".join(tiles) if len(tiles) <= 4 else f"{len(tiles)} tiles {tiles[0]}…{tiles[-1]}"
    return Region(name=named, geometry=union(outlines), tiles=tuple(tiles))


def _from_file(path: Path) -> Region:
    if not path.is_file():
        raise InputError(f"region file {path} does not exist: give a vector file, a bbox W,S,E,N or a place name")
    try:
        parquet = "parquet" in path.suffix.lower()
        listed = [] if parquet else gpd.list_layers(path).dropna()["name"].tolist()
        layers = [str(name) for name in listed]
        table = gpd.read_parquet(path) if parquet else gpd.read_file(path, layer=layers[0] if layers else None)
        drawn = [geometry for geometry in table.geometry if geometry is not None and not geometry.is_empty]
    except Exception as error:  # GDAL, Arrow and GEOS each raise their own kinds for a file they cannot read
        raise InputError(f"region file {path} cannot be read as a vector file: {error}") from error
    if len(layers) > 1:
        raise InputError(
            f"region file {path} has {len(layers)} layers with outlines ({', '.join(layers)}): write the one that is "
            "meant, or all of them together, to a file of one layer"
        )
    outlines = _geographic(path, drawn, table.crs)
    outlines = [outline for outline in outlines if not outline.is_empty]
    if not outlines:
        kinds = ", ".join(sorted({geometry.geom_type for geometry in drawn})) or "nothing"
        raise InputError(f"region file {path} holds {kinds}: a region needs polygons; buffer points or lines first")
    whole = union(outlines)
    if abs(whole.bounds[1]) > 90 or abs(whole.bounds[3]) > 90:
        raise InputError(
            f"region file {path} reaches latitude {whole.bounds[3]:g} in lon/lat: its coordinates are in another "
            f"reference system than it declares; write the right one into the file"
        )
    return Region(name=path.stem, geometry=whole)


def _geographic(path: Path, drawn: list[BaseGeometry], crs: CRS | None) -> list[MultiPolygon]:
    if crs is None:
        span = max((abs(value) for geometry in drawn for value in geometry.bounds), default=0.0)
        if span > 360:
            raise InputError(
                f"region file {path} declares no reference system, and coordinates up to {span:g} are no degrees: "
                f"write its reference system into the file"
            )
        return [wrapped(geometry) for geometry in drawn]
    if crs.is_geographic:
        plain = gpd.GeoSeries(drawn, crs=crs).to_crs("EPSG:4326")
        return [wrapped(geometry) for geometry in plain]
    size = max((max(g.bounds[2] - g.bounds[0], g.bounds[3] - g.bounds[1]) for g in drawn), default=0.0)
    dense = shapely.segmentize(np.array(drawn, dtype=object), max(size, 1e-9) / _DENSIFY)
    return [unrolled(geometry) for geometry in gpd.GeoSeries(dense, crs=crs).to_crs("EPSG:4326")]


def _from_name(text: str, cache: Path | None) -> Region:
    from geofm_pipeline.place_names import find_place  # cartopy and its outlines only when a name is asked for

    place = find_place(text, cache=cache)
    return Region(name=place.name, geometry=place.geometry)
