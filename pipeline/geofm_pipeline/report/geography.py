"""A plain map sheet: longitude and latitude at one scale per axis, right at the sheet's middle latitude.

Cells are drawn by asking for every pixel of a raster which cell it lies in, so a map costs the same for a hundred
cells and for a million, and neighbouring cells leave no seams.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from geofm_pipeline.lonlat import tile_polygon
from geofm_pipeline.report import svg, words
from geofm_pipeline.report.folder import Cells

WIDTH = 560.0
"""Width of every map in its own units."""
PIXELS = 840
"""Width of the raster under a map."""
KM_PER_DEGREE = 111.32
_STEPS = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0)
_KM_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_LABELLED_TILES, _OUTLINED_TILES = 30, 150
_ROOM = 56.0  # map units that the name of a tile takes
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sheet:
    """Where the cells of a frame lie on a map."""

    lon: Floats
    """Longitude of each cell, continuous across the antimeridian, shape (n,)."""
    lat: Floats
    edge_km: float
    """Edge of a cell."""
    tiles: tuple[str, ...]
    west: float
    south: float
    east: float
    north: float

    @classmethod
    def of(cls, cells: Cells, tiles: tuple[str, ...]) -> Sheet:
        """A sheet that holds all cells with a margin of half a cell and a bit."""
        lon = _continuous(cells.lon)
        edge_km = float(np.sqrt(np.median(cells.area_km2)))
        half_lat = edge_km / KM_PER_DEGREE / 2
        stretch = max(float(np.cos(np.radians(np.abs(cells.lat).max()))), 0.02)
        west, east = float(lon.min()) - half_lat / stretch, float(lon.max()) + half_lat / stretch
        south, north = float(cells.lat.min()) - half_lat, float(cells.lat.max()) + half_lat
        margin = 0.03 * max((east - west) * stretch, north - south)
        return cls(
            lon=lon,
            lat=np.asarray(cells.lat),
            edge_km=edge_km,
            tiles=tiles,
            west=west - margin / stretch,
            south=max(-90.0, south - margin),
            east=east + margin / stretch,
            north=min(90.0, north + margin),
        )

    @property
    def squeeze(self) -> float:
        """Width of a degree of longitude over one of latitude, at the middle of the sheet."""
        return max(float(np.cos(np.radians((self.south + self.north) / 2))), 0.02)

    @property
    def per_degree(self) -> float:
        """Map units of one degree of latitude; a very tall sheet is narrower than WIDTH."""
        across = (self.east - self.west) * self.squeeze
        return min(WIDTH / across, 0.95 * WIDTH / (self.north - self.south))

    @property
    def width(self) -> float:
        return (self.east - self.west) * self.squeeze * self.per_degree

    @property
    def height(self) -> float:
        return (self.north - self.south) * self.per_degree

    @property
    def cell_edge(self) -> float:
        """Edge of a cell in map units."""
        return self.edge_km / KM_PER_DEGREE * self.per_degree

    def x(self, lon: Floats) -> Floats:
        """Map units from the left."""
        return (lon - self.west) * self.squeeze * self.per_degree

    def y(self, lat: Floats) -> Floats:
        """Map units from the top."""
        return (self.north - lat) * self.per_degree

    @cached_property
    def cell_of_pixel(self) -> NDArray[np.int64]:
        """Cell under each pixel of the raster, −1 where there is none, shape (rows, columns)."""
        columns = max(1, round(PIXELS * self.width / WIDTH))
        rows = max(1, round(PIXELS * self.height / WIDTH))
        lat = self.north - (np.arange(rows) + 0.5) / rows * (self.north - self.south)
        lon = self.west + (np.arange(columns) + 0.5) / columns * (self.east - self.west)
        grid_lon, grid_lat = (grid.ravel() for grid in np.meshgrid(lon, lat))
        tree = cKDTree(_on_sphere(self.lon, self.lat))
        reach = max(self.edge_km / KM_PER_DEGREE * 0.52, 0.6 * (self.north - self.south) / rows)
        # The bound keeps wide sheets with little ground fast; what lies beyond it comes back as no cell.
        bound = float(np.radians(1.5 * reach))
        nearest = np.asarray(tree.query(_on_sphere(grid_lon, grid_lat), k=2, distance_upper_bound=bound)[1])
        found = np.full(grid_lon.size, -1, dtype=np.int64)
        for candidate in nearest.T:  # near the seam of two tiles the nearest centre need not be the cell's own
            known = candidate < self.lon.size
            cell = np.where(known, candidate, 0)
            dx = np.abs(grid_lon - self.lon[cell]) * np.cos(np.radians(self.lat[cell]))
            inside = known & (np.maximum(dx, np.abs(grid_lat - self.lat[cell])) <= reach) & (found < 0)
            found[inside] = cell[inside]
        return found.reshape(rows, columns)

    def raster(self, codes: NDArray[np.uint8], palette: list[str]) -> Markup:
        """An image of a palette index per cell; 0 is transparent, palette[i] the colour of i + 1."""
        indices = np.zeros(self.cell_of_pixel.shape, dtype=np.uint8)
        known = self.cell_of_pixel >= 0
        indices[known] = codes[self.cell_of_pixel[known]]
        return svg.element(
            "image",
            href=png(indices, palette),
            x=0.0,
            y=0.0,
            width=self.width,
            height=self.height,
            preserveAspectRatio="none",
        )

    def _tiles(self) -> list[Markup]:
        """Outlines of the tiles, none where they would cover the map."""
        drawn = []
        for _, x, y in self._outlines if len(self.tiles) <= _OUTLINED_TILES else ():
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
            drawn.append(svg.element("polygon", points=points, class_="tile"))
        return drawn

    def _tile_names(self) -> list[Markup]:
        """Names of a few tiles: inside their upper-left corner, above them where they are small."""
        drawn = []
        first = {tile: (x, y) for tile, x, y in reversed(self._outlines)} if len(self.tiles) <= _LABELLED_TILES else {}
        for tile, (x, y) in first.items():
            left, right, top = max(float(x.min()), 0.0), min(float(x.max()), self.width), max(float(y.min()), 0.0)
            if right - left > _ROOM:
                drawn.append(svg.text(left + 6, top + 14, tile, class_="tile-name"))
            else:
                middle = min(max((left + right) / 2, _ROOM / 2), self.width - _ROOM / 2)
                drawn.append(svg.text(middle, max(top - 4, 10.0), tile, anchor="middle", class_="tile-name"))
        return drawn

    @cached_property
    def _outlines(self) -> list[tuple[str, Floats, Floats]]:
        """(tile, x, y) in map units of each part of each tile's outline; the antimeridian cuts a tile in two."""
        drawn, middle = [], float(self.lon.mean())
        for tile in self.tiles:
            for part in tile_polygon(tile).geoms:
                ring = np.asarray(part.exterior.coords)
                turn = 360.0 * np.round((middle - ring[:, 0].mean()) / 360.0)
                drawn.append((tile, self.x(ring[:, 0] + turn), self.y(ring[:, 1])))
        return drawn

    def _graticule(self, axis: Literal["lon", "lat"]) -> list[Markup]:
        low, high = (self.west, self.east) if axis == "lon" else (self.south, self.north)
        fits = [step for step in _STEPS if (high - low) / step <= (5 if axis == "lon" else 4)]
        step = fits[0] if fits else 60.0
        drawn = []
        for index in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1):
            value = round(index * step, 6)
            if axis == "lon":
                at = float(self.x(np.array(value)))
                drawn += [svg.line(at, 0, at, self.height, "graticule")]
                drawn += [svg.text(at, self.height + 14, words.degrees(value, axis), anchor="middle")]
            else:
                at = float(self.y(np.array(value)))
                drawn += [svg.line(0, at, self.width, at, "graticule")]
                drawn += [svg.text(-6, at + 4, words.degrees(value, axis), anchor="end")]
        return drawn

    def _scale_bar(self) -> list[Markup]:
        per_km = self.per_degree / KM_PER_DEGREE
        length = max((km for km in _KM_STEPS if km * per_km <= self.width / 4), default=_KM_STEPS[0])
        y = self.height + 34
        right = self.width
        left = right - length * per_km
        return [
            svg.line(left, y, right, y, "scale"),
            svg.line(left, y - 4, left, y + 4, "scale"),
            svg.line(right, y - 4, right, y + 4, "scale"),
            svg.text(left - 8, y + 4, f"{words.number(length)} km", anchor="end"),
        ]

    def page(self, title: str, children: list[Markup]) -> Markup:
        """A finished map: its own layers under the furniture, with room for the labels."""
        left, top, bottom = 56.0, 6.0, 44.0
        border = svg.element("rect", x=0.0, y=0.0, width=self.width, height=self.height, class_="map-edge")
        inside = svg.element("svg", *children, *self._tiles(), width=self.width, height=self.height)  # clips
        lines = [*self._graticule("lon"), *self._graticule("lat"), *self._scale_bar(), border, *self._tile_names()]
        moved = svg.group([inside, *lines], transform=f"translate({left + (WIDTH - self.width) / 2:.1f} {top:g})")
        return svg.picture(WIDTH + left + 8, self.height + top + bottom, title, [moved], class_="figure map")


def png(indices: NDArray[np.uint8], palette: list[str]) -> str:
    """Data URI of a palette image (rows, columns); index 0 is transparent, palette[i] the colour of i + 1."""
    coloured = Image.frombytes("P", (indices.shape[1], indices.shape[0]), indices.tobytes())
    coloured.putpalette([0, 0, 0, *(int(c[i : i + 2], 16) for c in palette for i in (1, 3, 5))])
    return data_uri(coloured, "PNG", transparency=0)


def data_uri(image: Image.Image, kind: Literal["PNG", "WEBP"], *, transparency: int | None = None) -> str:
    """An image as a data URI: PNG without loss, WebP at the quality of a photograph."""
    stream = io.BytesIO()
    if kind == "PNG":
        image.save(stream, "PNG", optimize=True, **({} if transparency is None else {"transparency": transparency}))
    else:
        image.save(stream, "WEBP", quality=78, method=4)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _on_sphere(lon: Floats, lat: Floats) -> Floats:
    """Points of the unit sphere, shape (n, 3): near there is near on the ground, at every latitude."""
    east, north = np.radians(lon), np.radians(lat)
    return np.column_stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])


def _continuous(lon: Floats) -> Floats:
    """Longitudes without a jump at the antimeridian where the cells lie on both sides of it."""
    order = np.unique(lon)
    if order.size < 2 or order[-1] - order[0] <= 180:
        return np.asarray(lon)
    gaps = np.diff(order)
    widest = int(np.argmax(gaps))
    if gaps[widest] <= order[0] + 360 - order[-1]:
        return np.asarray(lon)
    return np.where(lon <= order[widest], lon + 360, lon)
