"""Plans and writes granules: which exist, what each file says, and the faults done to them on request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.hls import fmask as fm
from geofm_pipeline.hls.bands import BANDS, FILL, FMASK_FILE, SCALE, Sensor, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import TileGrid, tile_grid
from geofm_pipeline.simulator.climate import BELT
from geofm_pipeline.simulator.cog import Patch, encode_cog
from geofm_pipeline.simulator.ground import Ground
from geofm_pipeline.simulator.items import GranuleFacts, footprint
from geofm_pipeline.simulator.noise import Window, tile_window
from geofm_pipeline.simulator.orbits import Overpass, overpasses, row_latitude, sun
from geofm_pipeline.simulator.scene import Rendered, render
from geofm_pipeline.simulator.sky import coverage
from geofm_pipeline.simulator.spec import ArchiveSpec, Extent
from geofm_sampling.hashing import hashed_uniform
from geofm_sampling.unit import TILE_PIXELS, pack_tile

_EPOCH = date(1970, 1, 1).toordinal()
_LONG_NAMES = {
    "blue": "Blue",
    "green": "Green",
    "red": "Red",
    "nir_narrow": "NIR_Narrow",
    "swir1": "SWIR1",
    "swir2": "SWIR2",
}
_FMASK_TEXT = (
    "Bits are listed from the MSB (bit 7) to the LSB (bit 0): \n7-6    aerosol:\n       00 - climatology\n"
    "       01 - low\n       10 - average\n       11 - high\n5      water\n4      snow/ice\n3      cloud shadow\n"
    "2      adjacent to cloud\n1      cloud\n0      cirrus cloud\n"
)
LOGIN_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Earthdata Login</title></head>\n"
    b"<body><h1>Earthdata Login</h1><form>Username Password</form></body></html>\n"
)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A granule to be made."""

    tile: str
    overpass: Overpass
    time: datetime
    """Sensing time (UTC) of the id."""
    fault: str = ""
    """Name of the fault it suffers, if any."""

    @property
    def granule_id(self) -> str:
        """The HLS granule id."""
        return str(GranuleId(sensor=self.overpass.sensor, tile=self.tile, time=self.time))


def plan_granules(spec: ArchiveSpec) -> list[Planned]:
    """All granules of an archive, sorted by tile and time, faults assigned."""
    planned: list[Planned] = []
    for tile in spec.tiles:
        window = extent_window(spec, tile)
        passes = _kept(spec, window)
        planned += [Planned(tile=tile, overpass=overpass, time=overpass.time(window)) for overpass in passes]
    return _with_faults(spec, sorted(planned, key=lambda p: (p.tile, p.time)))


def extent_window(spec: ArchiveSpec, tile: str) -> Window:
    """The lattice window of a tile's extent."""
    extent = spec.extent(tile)
    return tile_window(tile_grid(tile), extent.row, extent.col, extent.height, extent.width)


def _kept(spec: ArchiveSpec, window: Window) -> list[Overpass]:
    """Passes over a tile after thinning; the choice hangs on the passes alone, so neighbours share most days."""
    seen = [p for sensor in spec.sensors for p in overpasses(sensor, window, spec.years)]
    passes = [p for p in seen if p.share(window) >= spec.least_share]
    if spec.per_year is None:
        return passes
    kept = []
    for year in spec.years:
        start, end = (date(y, 1, 1).toordinal() - _EPOCH for y in (year, year + 1))
        cuts = np.linspace(start, end, spec.per_year + 1).round().astype(int)
        for first, behind in pairwise(cuts.tolist()):
            slot = [p for p in passes if first <= p.day < behind]
            kept += [_chosen(spec, slot)] if slot else []
    return kept


def _chosen(spec: ArchiveSpec, slot: list[Overpass]) -> Overpass:
    """The least cloudy of a few random passes; cloudiness is judged at the zone's first tile, for all tiles alike."""
    belt = extent_window(spec, spec.tiles[0]).row // BELT
    order = np.argsort(hashed_uniform(spec.seed, "thinning", np.array([p.word for p in slot], dtype=np.uint64)))
    few = [slot[int(index)] for index in order[: spec.choices]]
    return min(few, key=lambda p: coverage(spec.seed, p, belt))


def _with_faults(spec: ArchiveSpec, planned: list[Planned]) -> list[Planned]:
    """Spread the faults over granules: the n-th fault hits a granule about n/(faults + 1) of the way through."""
    out = list(planned)
    free = list(range(len(out)))
    for number, fault in enumerate(spec.faults):
        wanted = len(planned) * (number + 1) // (len(spec.faults) + 1)
        fitting = [i for i in free if fault != "duplicate_tile_day" or out[i].overpass.sensor == "S30"] or free
        if not fitting:
            continue
        index = min(fitting, key=lambda i: abs(i - wanted))
        free.remove(index)
        if fault == "duplicate_tile_day":
            out.append(replace(out[index], time=out[index].time + timedelta(seconds=17), fault=fault))
        else:
            out[index] = replace(out[index], fault=fault)
    return sorted(out, key=lambda p: (p.tile, p.time))


def write_granule(spec: ArchiveSpec, planned: Planned, ground: Ground, root: Path) -> GranuleFacts:
    """Render one granule, write its seven files below `root` and return what its item says."""
    grid, extent, window = tile_grid(planned.tile), spec.extent(planned.tile), extent_window(spec, planned.tile)
    offset = _tile_offset(spec, planned.tile)
    rendered = render(spec.seed, planned.overpass, window, ground, offset=offset)
    if planned.fault == "sparse_zero_cloud":
        extent, rendered = _sparse(extent, rendered)
    if planned.fault == "impossible_fmask":
        rendered = replace(rendered, fmask=_interpolated(rendered.fmask))
    cloud = 0 if planned.fault == "sparse_zero_cloud" else fm.cloud_cover(rendered.fmask) or 0
    tags = _granule_tags(planned, grid, window, cloud, _spatial_coverage(rendered.fmask))
    folder = root / planned.granule_id
    folder.mkdir()
    for number, band in enumerate(BANDS):
        patch = Patch(row=extent.row, col=extent.col, pixels=rendered.image[number])
        _write_band(folder, planned, band, patch, grid, tags)
    mask = Patch(row=extent.row, col=extent.col, pixels=rendered.fmask)
    mask_tags = {**tags, "_FillValue": "255", "Fmask bit description": _FMASK_TEXT}
    data = encode_cog(mask, grid=grid, fill=fm.FILL, tags=dict(sorted(mask_tags.items())), scale=None)
    (folder / f"{planned.granule_id}.{FMASK_FILE}.tif").write_bytes(data)
    return GranuleFacts(
        granule_id=planned.granule_id,
        sensor=planned.overpass.sensor,
        time=planned.time,
        cloud_cover=cloud,
        footprint=footprint(grid, extent, planned.overpass),
        assets=_assets(planned),
    )


def _write_band(folder: Path, planned: Planned, band: str, patch: Patch, grid: TileGrid, tags: dict[str, str]) -> None:
    """Write one spectral band, with the fault that befalls it."""
    key = band_file(planned.overpass.sensor, band)
    if key not in _assets(planned):
        return
    scale = 1e-3 if planned.fault == "wrong_scale_tag" and band == "red" else SCALE
    own = {"_FillValue": str(FILL), "add_offset": "0", "long_name": _LONG_NAMES[band], "scale_factor": f"{scale:g}"}
    data = encode_cog(patch, grid=grid, fill=FILL, tags=dict(sorted({**tags, **own}.items())), scale=scale)
    if planned.fault == "truncated_file" and band == "nir_narrow":
        data = data[: len(data) * 6 // 10]
    if planned.fault == "html_page" and band == "blue":
        data = LOGIN_PAGE
    (folder / f"{planned.granule_id}.{key}.tif").write_bytes(data)


def _assets(planned: Planned) -> tuple[str, ...]:
    """Asset keys of a granule in the order of BANDS, Fmask last."""
    lost = "swir2" if planned.fault == "missing_asset" else ""
    sensor = planned.overpass.sensor
    return (*(band_file(sensor, band) for band in BANDS if band != lost), FMASK_FILE)


def _tile_offset(spec: ArchiveSpec, tile: str) -> int:
    if not spec.tile_offset:
        return 0
    u = hashed_uniform(spec.seed, "tile-offset", np.array([pack_tile(tile)], dtype=np.uint64))[0]
    return round((2 * float(u) - 1) * spec.tile_offset)


def _spatial_coverage(mask: NDArray[np.uint8]) -> int:
    """Percent of the whole tile with data, from the extent's part of the Fmask."""
    return round(100 * int((mask != fm.FILL).sum()) / TILE_PIXELS**2)


def _sparse(extent: Extent, rendered: Rendered) -> tuple[Extent, Rendered]:
    """The western strip of the extent that makes 3 % of the tile, wholly under cloud."""
    width = min(extent.width, max(1, round(0.03 * TILE_PIXELS**2 / extent.height)))
    image = rendered.image[:, :, :width].copy()
    image = np.where(image == FILL, np.int16(5200), np.maximum(image, np.int16(3900)))
    return replace(extent, width=width), Rendered(image=image, fmask=np.full(image.shape[1:], 194, dtype=np.uint8))


def _interpolated(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The Fmask as a bilinear resampling by a third of a pixel leaves it."""
    wide = mask.astype(np.float32)
    right, down = np.roll(wide, -1, axis=1), np.roll(wide, -1, axis=0)
    blend = np.rint(wide + (right - wide) / 3 + (down - wide) / 3)
    blend = np.clip(blend, 0, 254).astype(np.uint8)
    return np.where((mask == fm.FILL) | (right == fm.FILL) | (down == fm.FILL), mask, blend).astype(np.uint8)


def _granule_tags(planned: Planned, grid: TileGrid, window: Window, cloud: int, spatial: int) -> dict[str, str]:
    """The tags that all files of a granule share, as v2.0 writes them."""
    here = sun(planned.overpass, np.array([window.row + window.height // 2]))
    zenith = float(np.degrees(here.zenith[0]))
    sensing = planned.time.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    return {
        "ACCODE": "Lasrc",
        "arop_ave_xshift(meters)": "0",
        "arop_ave_yshift(meters)": "0",
        "arop_ncp": "0",
        "arop_rmse(meters)": "0",
        "arop_s2_refimg": "NONE",
        "cloud_coverage": str(cloud),
        "HLS_PROCESSING_TIME": (planned.time + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "HORIZONTAL_CS_NAME": f"UTM, WGS84, UTM ZONE {grid.zone}",
        "L1_PROCESSING_TIME": (planned.time + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "MEAN_SUN_AZIMUTH_ANGLE": f"{float(np.degrees(here.azimuth[0])) % 360:.9f}",
        "MEAN_SUN_ZENITH_ANGLE": f"{zenith:.9f}",
        "MEAN_VIEW_AZIMUTH_ANGLE": "106.000000000",
        "MEAN_VIEW_ZENITH_ANGLE": "4.500000000",
        "NBAR_SOLAR_ZENITH": f"{zenith:.9f}",
        "NCOLS": str(TILE_PIXELS),
        "NROWS": str(TILE_PIXELS),
        "OVR_RESAMPLING_ALG": "NEAREST",
        "SENSING_TIME": sensing,
        "SENTINEL2_TILEID": planned.tile,
        "spatial_coverage": str(spatial),
        "SPATIAL_RESOLUTION": "30",
        "ULX": str(grid.x0),
        "ULY": str(grid.y0),
        **_sensor_tags(planned.overpass, planned.time),
        "simulated": f"latitude {float(row_latitude(np.array([window.row]))[0]):.2f}, no real observation",
    }


def _sensor_tags(overpass: Overpass, time: datetime) -> dict[str, str]:
    sensor: Sensor = overpass.sensor
    if sensor == "L30":
        path = overpass.track % 233 + 1
        return {
            "LANDSAT_PRODUCT_ID": f"LC08_L1TP_{path:03d}028_{time:%Y%m%d}_{time:%Y%m%d}_02_T1",
            "LANDSAT_SCENE_ID": f"LC8{path:03d}028{time:%Y%j}LGN00",
            "PROCESSING_LEVEL": "L1TP",
            "SENSOR": "OLI_TIRS",
            "TIRS_SSM_MODEL": "FINAL",
            "TIRS_SSM_POSITION_STATUS": "ESTIMATED",
            "USGS_SOFTWARE": "LPGS_15.4.0",
        }
    return {
        "PROCESSING_BASELINE": "04.00",
        "PRODUCT_URI": f"S2A_MSIL1C_{time:%Y%m%dT%H%M%S}_N0400_R{overpass.track:03d}_{time:%Y%m%dT%H%M%S}.SAFE",
        "SPACECRAFT_NAME": "Sentinel-2A",
    }
