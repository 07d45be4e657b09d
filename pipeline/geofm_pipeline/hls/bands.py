"""Bands of HLS v2.0 by canonical name and by sensor, and the constants every pixel obeys.

Traps (LP DAAC's own metadata has them wrong): narrow NIR is B05 in L30 but B8A, not B08, in S30; B11 is a thermal
band in L30 and SWIR 1 in S30.
"""

from __future__ import annotations

from typing import Literal

Sensor = Literal["L30", "S30"]
SENSORS: tuple[Sensor, ...] = ("L30", "S30")
SENSOR_CODE: dict[Sensor, int] = {"L30": 0, "S30": 1}
"""Value of a sensor in a store's `sensor` array; -1 is its fill."""

BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
"""Axis B of every image, in order."""
FMASK = "fmask"
BAND_FILES: dict[Sensor, dict[str, str]] = {
    "L30": {"blue": "B02", "green": "B03", "red": "B04", "nir_narrow": "B05", "swir1": "B06", "swir2": "B07"},
    "S30": {"blue": "B02", "green": "B03", "red": "B04", "nir_narrow": "B8A", "swir1": "B11", "swir2": "B12"},
}
"""Asset key and file suffix of each spectral band."""
FMASK_FILE = "Fmask"

SCALE = 1e-4
"""Reflectance of one count. Hard-coded: some files carry the tag in the wrong place."""
FILL = -9999
"""The only missing value; values ≤ 0 over water and shadow are data."""
PIXEL_M = 30
BLOCK = 256
"""Edge of a COG block in pixels."""


def band_file(sensor: Sensor, band: str) -> str:
    """Asset key of a canonical band or `fmask` for a sensor, e.g. ("S30", "nir_narrow") → `B8A`."""
    return FMASK_FILE if band == FMASK else BAND_FILES[sensor][band]
