"""SceneTable: the granules a catalogue found, one row each, whatever dialect the catalogue speaks.

Hrefs are derived from the id by a template; a row carries overrides only where an asset's href differs, so a
million granules take well under a gigabyte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import BANDS, FMASK, Sensor, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_sampling.contract import Column, TableContract

SCENES = TableContract(
    name="scene",
    columns={
        "granule_id": Column(type=pa.string(), meaning="HLS granule id, unique"),
        "sensor": Column(type=pa.string(), meaning="L30 or S30, from the id"),
        "tile": Column(type=pa.string(), meaning="MGRS tile, from the id"),
        "time": Column(type=pa.timestamp("ms", tz="UTC"), meaning="sensing time, from the id"),
        "cloud_cover": Column(type=pa.float32(), meaning="cloud or shadow, percent of valid pixels; NaN if unknown"),
        "footprint": Column(type=pa.binary(), meaning="WKB polygon in lon/lat (EPSG:4326), split at the antimeridian"),
        "href_template": Column(type=pa.string(), meaning="location with {id} and {band}, e.g. …/{id}/{id}.{band}.tif"),
        "hrefs": Column(type=pa.map_(pa.string(), pa.string()), meaning="asset key → href where the template is wrong"),
        "missing": Column(type=pa.list_(pa.string()), meaning="asset keys of the six bands and Fmask that are absent"),
    },
)
"""Sorted by (tile, time, granule_id), without duplicates."""


@dataclass(frozen=True, kw_only=True)
class SceneRef:
    """What a reader needs of one granule; small and picklable."""

    granule_id: str
    sensor: Sensor
    date: int
    """Sensing day (UTC), days since 1970-01-01."""
    bands: tuple[str, ...]
    """Hrefs (absolute path or URL) of the six spectral bands in the order of BANDS; '' where the asset is missing."""
    fmask: str
    """Href of the Fmask; '' where missing."""

    def href(self, band: str) -> str:
        """Href of a canonical band or `fmask`."""
        return self.fmask if band == FMASK else self.bands[BANDS.index(band)]


def asset_href(*, granule_id: str, sensor: Sensor, band: str, template: str, overrides: dict[str, str]) -> str:
    """Href of a canonical band or `fmask`: the override if there is one, else the filled template."""
    key = band_file(sensor, band)
    return overrides.get(key) or template.replace("{id}", granule_id).replace("{band}", key)


def sensing_days(scenes: pa.Table) -> NDArray[np.int64]:
    """Days since 1970-01-01 (UTC) of a SCENES table's rows, shape (n,)."""
    return np.asarray(scenes["time"].cast(pa.date32()).cast(pa.int32()).to_numpy(), dtype=np.int64)


def scene_refs(scenes: pa.Table) -> list[SceneRef]:
    """One SceneRef per row of a SCENES table, in its order."""
    columns = ("granule_id", "sensor", "href_template", "hrefs", "missing")
    return [_scene_ref(*row) for row in zip(*(scenes[name].to_pylist() for name in columns), strict=True)]


def _scene_ref(
    granule_id: str, sensor: Sensor, template: str, hrefs: list[tuple[str, str]], missing: list[str]
) -> SceneRef:
    overrides = dict(hrefs or ())

    def href(band: str) -> str:
        if band_file(sensor, band) in (missing or ()):
            return ""
        return asset_href(granule_id=granule_id, sensor=sensor, band=band, template=template, overrides=overrides)

    return SceneRef(
        granule_id=granule_id,
        sensor=sensor,
        date=GranuleId.parse(granule_id).day,
        bands=tuple(href(band) for band in BANDS),
        fmask=href(FMASK),
    )
