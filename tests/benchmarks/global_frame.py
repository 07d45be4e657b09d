"""Frames of real ground for tests/benchmarks/designs.py: all land tiles of the HLS grid, and cells of one country.

Two populations from public tables and maps (DATA is the folder of the real data):

- `globe`: one unit = tile × season of 2022, over the tiles north of 60° S that own land. Land cover (GLCNMO 2008, eight
  classes, 1/3°), elevation and tree cover are read at the centres of the 256-px cells that a tile owns, so a tile's
  area is the land it owns; monthly temperature and precipitation (NOAA, 2.5°) are those of the grid point nearest to
  the tile's centre with a value.
- `conus`: one unit = 256-px cell × season of 2022, over the 450 tiles of the real granule list of the conterminous
  United States, with the covariates that the command itself gives cells.

No pixels exist at these scales, so the information score is a declared **surrogate** on the maps:
(1 + H) · (1 + log₂(1 + R / 100 m)), H the entropy in bits of the twenty land-cover classes and R the range of elevation
of the 3 × 3 map pixels around. Building takes about 40 s for the globe and 15 s for the country.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import rasterio
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter
from scipy.spatial import cKDTree

from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.cells import owned_cells
from geofm_pipeline.covariates import land_cover_fractions, weather_monthly
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years
from geofm_sampling import Design, build_frame, fit_strata
from geofm_sampling.blocks import Split
from geofm_sampling.covariates import land_cover_codes, monthly
from geofm_sampling.strata import Strata
from geofm_sampling.tables import CELLS

Floats = NDArray[np.float64]
YEARS = (2022,)
WORLD = "-180,-60,180,84"
LEAST_LAND_KM2 = 500.0
"""Land that a tile must own to be in the global frame: some ten cells of 256 px."""
GROUPS = {1: "forest", 2: "natural", 3: "crop", 4: "wetland", 5: "bare", 6: "urban", 7: "snow_ice", 8: "water"}
"""GLCNMO's eight aggregated classes; `natural` is other natural vegetation."""
GROUPS_20 = dict.fromkeys(range(1, 7), "forest") | {
    **{7: "natural", 8: "natural", 9: "natural", 10: "bare", 11: "crop", 12: "crop", 13: "crop", 14: "wetland"},
    **{15: "wetland", 16: "bare", 17: "bare", 18: "urban", 19: "snow_ice", 20: "water"},
}
"""GLCNMO's twenty classes in those groups."""
ESTIMATED = (
    "elevation",
    "elevation range",
    "tree cover",
    "cropland",
    "latitude",
    "temperature of July",
    "precipitation of the year",
    "temperature of the season",
)
"""Variables whose area means are estimated: neither raked nor constant within strata."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Cells or tiles with what the maps show of them, shape (n,) or as said."""

    cells: pa.Table
    """CELLS with covariates."""
    elevation: Floats
    """Metres."""
    relief: Floats
    """Range of elevation of the 3 × 3 map pixels around, metres."""
    tree: Floats
    """Tree cover, per cent."""
    diversity: Floats
    """Entropy of the twenty classes in the 3 × 3 map pixels around, bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """A frame with what designs see and what is measured on them; n units."""

    name: str
    ground: Ground
    strata: Strata
    frame: pa.Table
    """FRAME without a split."""
    stratum: NDArray[np.int64]
    """Number among the strata that have units, 0 … H − 1."""
    area: Floats
    """Land of the unit, km²."""
    score: Floats
    """The declared surrogate of information."""
    shares: Floats
    """Shares of the land-cover groups, (n, C)."""
    estimated: Floats
    """The variables ESTIMATED, (n, V)."""
    covariates: Floats
    """Standardised covariates that coverage is measured in, (n, d)."""
    xyz: Floats
    """Place on the unit sphere, (n, 3)."""

    @property
    def unit(self) -> NDArray[np.uint64]:
        """Ids, ascending."""
        return self.frame["unit"].to_numpy()

    @property
    def sizes(self) -> NDArray[np.int64]:
        """N_h, shape (H,)."""
        return np.bincount(self.stratum)


class Maps:
    """The global 1/3° maps, looked up by position."""

    def __init__(self, data: Path) -> None:
        folder = data / "maps"
        self.cover8 = _band(folder / "glcnmo2008_cover8_0.333deg.tif")
        elevation = _band(folder / "elevation_m_0.333deg.tif").astype(np.float64)
        self.elevation = np.where(elevation < -1000, 0.0, elevation)
        tree = _band(folder / "tree_cover_pct_0.333deg.tif").astype(np.float64)
        self.tree = np.where(tree > 100, 0.0, tree)
        self.relief = maximum_filter(self.elevation, 3, mode="wrap") - minimum_filter(self.elevation, 3, mode="wrap")
        self.diversity = _local_entropy(_band(folder / "glcnmo2008_cover20_0.333deg.tif"))

    @staticmethod
    def at(band: NDArray[np.generic], lon: Floats, lat: Floats) -> NDArray[np.generic]:
        """Value of the pixel that holds each point, shape (n,)."""
        rows, cols = band.shape
        row = np.clip((90.0 - lat) / 180.0 * rows, 0, rows - 1).astype(int)
        return band[row, ((lon + 180.0) / 360.0 * cols).astype(int) % cols]


def _band(path: Path) -> NDArray[np.generic]:
    with rasterio.open(path) as raster:
        return np.asarray(raster.read(1))


def _local_entropy(cover: NDArray[np.generic]) -> Floats:
    """Entropy in bits of the classes in the 3 × 3 pixels around each pixel."""
    result = np.zeros(cover.shape)
    for code in np.unique(cover):
        share = np.clip(uniform_filter((cover == code).astype(np.float64), 3, mode="wrap"), 0.0, 1.0)
        result -= share * np.log2(np.where(share > 1e-9, share, 1.0))
    return result


def global_tiles(data: Path, region: str = WORLD) -> Ground:
    """All land tiles of a box (west,south,east,north), one cell per tile: row 0, column 0 stand for the whole."""
    grid = gpd.read_parquet(data / "s2-grid" / "sentinel-2-grid_LAND.parquet")
    west, south, east, north = map(float, region.split(","))
    grid = grid.cx[west:east, south:north]
    owned = owned_cells(sorted(grid["tile"]), parse_region(region), chip_size=256).table
    maps, lon, lat = Maps(data), owned["lon"].to_numpy(), owned["lat"].to_numpy()
    cover = maps.at(maps.cover8, lon, lat).astype(np.int64)
    names, tile = np.unique(owned["tile"].to_numpy(zero_copy_only=False), return_inverse=True)
    land = owned["area_km2"].to_numpy().astype(np.float64) * (cover != 8)
    sums = np.bincount(tile, weights=land)
    kept = np.flatnonzero(sums >= LEAST_LAND_KM2)

    def mean(values: NDArray[np.generic]) -> Floats:
        return np.asarray(np.bincount(tile, weights=land * values)[kept] / sums[kept])

    # The centre of the land, by directions, so that the antimeridian does no harm.
    x, y = mean(np.cos(np.radians(lon))), mean(np.sin(np.radians(lon)))
    centre = np.degrees(np.arctan2(y, x)), mean(lat)
    columns = {
        "tile": names[kept].tolist(),
        "cell_row": np.zeros(kept.size, dtype=np.int16),
        "cell_col": np.zeros(kept.size, dtype=np.int16),
        "lon": centre[0],
        "lat": centre[1],
        "area_km2": sums[kept].astype(np.float32),
        **{f"lc_{code}": mean(cover == code).astype(np.float32) for code in range(1, 8)},
        **_nearest_weather(data, *centre),
    }
    looked = {name: mean(maps.at(getattr(maps, name), lon, lat)) for name in ("elevation", "relief", "tree")}
    diversity = mean(maps.at(maps.diversity, lon, lat))
    return Ground(cells=CELLS.check(pa.table(columns)), diversity=diversity, **looked)


def _nearest_weather(data: Path, lon: Floats, lat: Floats) -> dict[str, NDArray[np.float32]]:
    """Monthly columns of the nearest grid point that has values; CMAP has none near the pole."""
    columns = {}
    for letter, name, variable, factor in (("t", "air", "air", 1.0), ("p", "precip", "precip", 365.25 / 12)):
        with xr.open_dataset(data / "weather" / f"{name}.mon.ltm.nc", decode_times=False) as grid:
            months = grid[variable].to_numpy().reshape(12, -1)
            places = np.meshgrid(grid["lon"].to_numpy().astype(float), grid["lat"].to_numpy().astype(float))
        known = np.isfinite(months).all(axis=0)
        tree = cKDTree(_directions(*(axis.ravel()[known] for axis in places)))
        points = months[:, known][:, tree.query(_directions(lon, lat))[1]]
        for month in range(12):
            columns[f"wx_{letter}{month + 1:02d}"] = (points[month] * factor).astype(np.float32)
    return columns


def _directions(lon: Floats, lat: Floats) -> Floats:
    """Points on the unit sphere, shape (n, 3)."""
    east, north = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)


def conus_cells(data: Path) -> Ground:
    """Cells of 256 px of the 450 tiles of the granule list, with the covariates that the command gives them."""
    from planning_conus import CONUS, write_catalog

    region, years = parse_region(CONUS), parse_years("2022")
    with tempfile.TemporaryDirectory() as folder:
        scenes = find_scenes(write_catalog(data, Path(folder) / "items.json"), region, years)
    tiles = sorted(set(scenes["tile"].to_pylist()))
    cells = owned_cells(tiles, region, chip_size=256).table
    cells = land_cover_fractions(cells, str(data / "maps" / "glcnmo2008_cover20_0.333deg.tif")).table
    weather = ",".join(str(data / "weather" / f"{name}.mon.ltm.nc") for name in ("air", "precip"))
    cells = weather_monthly(cells, weather, years=years).table
    if "lc_20" in cells.column_names:  # open water: out of the frame, as on the globe
        cells = cells.filter(pa.array(cells["lc_20"].to_numpy() < 0.9))
    maps, lon, lat = Maps(data), cells["lon"].to_numpy(), cells["lat"].to_numpy()
    looked = {
        name: maps.at(getattr(maps, name), lon, lat).astype(float)
        for name in ("elevation", "relief", "tree", "diversity")
    }
    return Ground(cells=cells, **looked)


def make_population(name: str, ground: Ground, *, seed: int = 1, split: Split | None = None) -> Population:
    """Strata fitted on the ground, its frame, and what is measured on it."""
    groups = GROUPS if name == "globe" else GROUPS_20
    strata = fit_strata(ground.cells, seed=seed, groups=groups)
    frame = build_frame(ground.cells, strata, years=YEARS, chip_size=256, split=split)
    cell = _cell_of_units(ground.cells, frame)
    temperature, rain = (monthly(ground.cells, letter)[cell].astype(float) for letter in "tp")  # type: ignore[index]
    lon, lat = frame["lon"].to_numpy(), frame["lat"].to_numpy()
    shares = _group_shares(ground.cells, groups)[cell]
    season = _season_months(frame)
    rows = np.arange(cell.size)[:, None]
    warm, wet = temperature[rows, season].mean(axis=1), rain[rows, season].sum(axis=1)
    elevation, relief = ground.elevation[cell], ground.relief[cell]
    crop = shares[:, sorted(set(groups.values())).index("crop")]
    estimated = (
        *(elevation, relief, ground.tree[cell], crop, lat),
        *(temperature[:, 6], rain.sum(axis=1), warm),
    )
    seen = (
        *(warm, np.log1p(wet), temperature.mean(axis=1), np.ptp(temperature, axis=1), np.log1p(rain.sum(axis=1))),
        *(elevation, np.log1p(relief), ground.tree[cell], ground.diversity[cell], *shares.T),
    )
    covariates = np.stack(seen, axis=1)
    scale = covariates.std(axis=0)
    keep = scale > 1e-9
    return Population(
        name=name,
        ground=ground,
        strata=strata,
        frame=frame,
        stratum=np.unique(frame["stratum"].to_numpy(), return_inverse=True)[1].astype(np.int64),
        area=frame["area_km2"].to_numpy().astype(np.float64),
        score=((1.0 + ground.diversity) * (1.0 + np.log2(1.0 + ground.relief / 100.0)))[cell],
        shares=shares,
        estimated=np.stack(estimated, axis=1),
        covariates=((covariates - covariates.mean(axis=0)) / np.maximum(scale, 1e-9))[:, keep],
        xyz=_directions(lon, lat),
    )


def _cell_of_units(cells: pa.Table, frame: pa.Table) -> NDArray[np.int64]:
    """Row of the cells for each unit of the frame."""
    keys = ("tile", "cell_row", "cell_col")
    place = {key: row for row, key in enumerate(zip(*(cells[name].to_pylist() for name in keys), strict=True))}
    found = zip(*(frame[name].to_pylist() for name in keys), strict=True)
    return np.array([place[key] for key in found], dtype=np.int64)


def _group_shares(cells: pa.Table, groups: dict[int, str]) -> Floats:
    names = sorted(set(groups.values()))
    shares = np.zeros((cells.num_rows, len(names)))
    for code in land_cover_codes(cells):
        shares[:, names.index(groups[code])] += np.nan_to_num(cells[f"lc_{code}"].to_numpy())
    return shares


def _season_months(frame: pa.Table) -> NDArray[np.int64]:
    """The month in the middle of each unit's anchor season and its two neighbours, 0-11, shape (n, 3)."""
    middle = (frame["season_start"].to_numpy().astype(np.int64) + frame["season_end"].to_numpy()) // 2
    month = middle.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    return (month[:, None] + np.array([-1, 0, 1])) % 12


def plain_design(samples: int, **more: object) -> Design:
    """A design over YEARS whose phases have as many units as samples, unless told otherwise."""
    return Design(**{"samples": samples, "years": YEARS, "timesteps": 1, "first_phase": 1.0, **more})  # type: ignore[arg-type]
