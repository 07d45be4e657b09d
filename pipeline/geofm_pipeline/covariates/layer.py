"""A user's own strata: the attribute of a vector layer at the centre of each cell.

Any vector file GDAL reads, or GeoParquet, in any reference system it declares. Broken outlines are repaired, those
drawn over the antimeridian are split there. Reading costs memory once per process; a cell costs about 2 µs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.covariates.class_index import file_stamp
from geofm_pipeline.covariates.result import Covariates
from geofm_pipeline.errors import InputError
from geofm_pipeline.ground_coverage import sphere_area
from geofm_pipeline.lonlat import unrolled, wrapped
from geofm_sampling.tables import BY_PREFIX, CELLS

OPTION = "--strata"
NONE = "none"
"""Value of cells outside all polygons, and of polygons without a value."""
_CHUNK = 1 << 18  # cells at once
_DENSIFY = 200  # points along the longer side of a projected outline, whose straight edges are curves in lon/lat

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Polygons with a value each."""

    source: str
    attribute: str
    """As the file writes it."""
    shapes: NDArray[np.object_]
    """Polygons in EPSG:4326, by area ascending, shape (n,)."""
    values: tuple[str, ...]
    """Value of each, and last `none`, shape (n + 1,)."""

    @property
    def column(self) -> str:
        """Name of the column of cells: `by_eco_name` for ECO_NAME."""
        return f"{BY_PREFIX}{self.attribute.lower()}"

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Index of the polygons."""
        return shapely.STRtree(list(self.shapes))


def layer_values(cells: pa.Table, source: str, attribute: str) -> Covariates:
    """Cells with a string column `by_<attribute in lower case>`: the layer's value at the cell's centre.

    Parameters
    ----------
    cells : CELLS
    source : vector file of polygons
    attribute : its column, in any case; numbers become text, `none` is a cell outside all polygons; where polygons
        overlap the one with the smallest area wins, of equal areas the first in the file

    Raises
    ------
    InputError
        When the file cannot be read, has no polygons or no such attribute, or covers none of the cells.
    """
    cells = CELLS.check(cells)
    layer = open_layer(source, attribute)
    lon, lat = (np.asarray(cells[name], dtype=np.float64) for name in ("lon", "lat"))
    found, several = np.empty(lon.size, dtype=np.int32), 0
    for start in range(0, lon.size, _CHUNK):
        here = slice(start, start + _CHUNK)
        found[here], more = _smallest_at(layer, lon[here], lat[here])
        several += more
    values = pa.DictionaryArray.from_arrays(pa.array(found), pa.array(layer.values, type=pa.string()))
    outside = int((np.array(layer.values, dtype=object)[found] == NONE).sum())
    if lon.size and outside == lon.size:
        raise InputError(
            f"{OPTION} {source}:{attribute} covers none of the region's {lon.size:,} cells: is it of another place, "
            "or does it declare the wrong reference system?"
        )
    table = cells.append_column(layer.column, values.cast(pa.string()))
    return Covariates(table=CELLS.check(table), note=_note(layer, lon.size, outside, several))


def open_layer(source: str, attribute: str) -> Layer:
    """Read, repair and reproject a layer; the last one stays in memory."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"{OPTION} {source} does not exist: give a vector file of polygons")
    return _open_layer(source, attribute, file_stamp(source))


@lru_cache(maxsize=1)
def _open_layer(source: str, attribute: str, _stamp: str) -> Layer:
    table = _read(source)
    name = _attribute(table, attribute, source)
    drawn = [(shape, _text(value)) for shape, value in zip(table.geometry, table[name], strict=True)]
    drawn = [(shape, value) for shape, value in drawn if shape is not None and not shape.is_empty]
    shapes = _in_degrees([shape for shape, _ in drawn], table, source)
    kept = [(shape, value) for shape, (_, value) in zip(shapes, drawn, strict=True) if not shape.is_empty]
    if not kept:
        raise InputError(f"{OPTION} {source} holds no polygons: give a layer of areas; buffer points or lines first")
    order = np.argsort([sphere_area(shape) for shape, _ in kept], kind="stable")
    ordered = np.empty(len(kept), dtype=object)
    ordered[:] = [kept[int(i)][0] for i in order]
    return Layer(source=source, attribute=name, shapes=ordered, values=(*(kept[int(i)][1] for i in order), NONE))


def _smallest_at(layer: Layer, lon: Floats, lat: Floats) -> tuple[NDArray[np.int32], int]:
    """Index of the smallest polygon at each point, n outside all, and how many points lie in polygons that differ."""
    cell, shape = layer.tree.query(shapely.points(lon, lat), predicate="intersects")
    order = np.lexsort((shape, cell))
    cell, shape = cell[order], shape[order]
    found = np.full(lon.size, len(layer.values) - 1, dtype=np.int32)
    first = np.unique(cell, return_index=True)[1]
    found[cell[first]] = shape[first]  # shapes are in order of area
    values = np.array(layer.values, dtype=object)
    return found, int(np.unique(cell[values[found[cell]] != values[shape]]).size)


def _note(layer: Layer, cells: int, outside: int, several: int) -> str:
    notes = []
    if outside:
        notes.append(f"{outside:,} of {cells:,} cells lie in no polygon with {layer.attribute}: class {NONE}")
    if several:
        notes.append(f"{several:,} cells lie in several polygons of {layer.attribute}: the smallest one counts")
    return "; ".join(notes)


def _read(source: str) -> gpd.GeoDataFrame:
    path = Path(source).expanduser()
    try:
        if "parquet" in path.suffix.lower():
            return gpd.read_parquet(path)
        layers = [str(name) for name in gpd.list_layers(path).dropna()["name"]]
        table = gpd.read_file(path, layer=layers[0] if layers else None)
    except Exception as error:  # GDAL, Arrow and GEOS each raise their own kinds for a file they cannot read
        raise InputError(f"{OPTION} {source} cannot be read as a vector file: {error}") from error
    if len(layers) > 1:
        raise InputError(
            f"{OPTION} {source} has {len(layers)} layers with outlines ({', '.join(layers)}): write the one that is "
            "meant to a file of its own"
        )
    if not isinstance(table, gpd.GeoDataFrame):
        raise InputError(f"{OPTION} {source} holds a table without outlines: give a vector file of polygons")
    return table


def _attribute(table: gpd.GeoDataFrame, attribute: str, source: str) -> str:
    names = [str(name) for name in table.columns if name != table.geometry.name]
    exact = [name for name in names if name == attribute]
    alike = exact or [name for name in names if name.lower() == attribute.strip().lower()]
    if len(alike) != 1:
        raise InputError(
            f"{OPTION} {source} has {'no' if not alike else 'more than one'} attribute {attribute!r}: it has "
            f"{', '.join(names) or 'none'}"
        )
    return alike[0]


def _text(value: object) -> str:
    """A value as text, without the `.0` of whole numbers; missing ones are `none`."""
    if value is None or value != value or str(value).strip() == "":
        return NONE
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _in_degrees(shapes: list[BaseGeometry], table: gpd.GeoDataFrame, source: str) -> list[MultiPolygon]:
    """Polygons in EPSG:4326 as geofm_pipeline.region reads them: lon/lat as drawn, projected edges densified."""
    bounds = np.abs([shape.bounds for shape in shapes] or [(0.0, 0.0, 0.0, 0.0)])
    if table.crs is None and bounds.max() > 360:
        raise InputError(
            f"{OPTION} {source} declares no reference system, and coordinates up to {bounds.max():g} are no degrees: "
            "write its reference system into the file"
        )
    if table.crs is None or table.crs.is_geographic:
        plain = shapes if table.crs is None else list(gpd.GeoSeries(shapes, crs=table.crs).to_crs("EPSG:4326"))
        return [wrapped(shape) for shape in plain]
    sizes = [max(b[2] - b[0], b[3] - b[1]) for b in (shape.bounds for shape in shapes)]
    dense = shapely.segmentize(np.array(shapes, dtype=object), np.maximum(sizes, 1e-9) / _DENSIFY)
    return [unrolled(shape) for shape in gpd.GeoSeries(dense, crs=table.crs).to_crs("EPSG:4326")]
