"""The granule id `HLS.{L30|S30}.T{MGRS}.{YYYYDDD}T{HHMMSS}.v2.0`: the one name every catalogue agrees on.

Sensor, tile and sensing time are taken from the id, never from item fields, so that all catalogues give the same
table (CMR's `datetime` may differ from the id by minutes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import Sensor
from geofm_sampling.unit import pack_tile

_PATTERN = re.compile(r"HLS\.(L30|S30)\.T(\d{2}[C-X][A-Z]{2})\.(\d{4})(\d{3})T(\d{2})(\d{2})(\d{2})\.v(\d+\.\d+)")


@dataclass(frozen=True, kw_only=True)
class GranuleId:
    """A parsed granule id; `str()` gives the id back."""

    sensor: Sensor
    tile: str
    """MGRS tile without the leading T, e.g. `10SFE`."""
    time: datetime
    """Sensing time (UTC) to the second."""
    version: str = "2.0"

    def __str__(self) -> str:
        return f"HLS.{self.sensor}.T{self.tile}.{self.time:%Y%jT%H%M%S}.v{self.version}"

    @classmethod
    def parse(cls, text: str) -> GranuleId:
        """Parse an id; raises InputError naming the text and the pattern."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InputError(
                f"{text!r} is not an HLS granule id: expected HLS.<L30|S30>.T<MGRS tile>.<YYYYDDD>T<HHMMSS>.v2.0"
            )
        sensor, tile, year, day, hour, minute, second, version = match.groups()
        pack_tile(tile)
        time = datetime(int(year), 1, 1, int(hour), int(minute), int(second), tzinfo=UTC) + timedelta(int(day) - 1)
        if time.year != int(year):
            raise InputError(f"{text!r} names day {day} of {year}, which that year does not have")
        return cls(sensor="L30" if sensor == "L30" else "S30", tile=tile, time=time, version=version)

    @property
    def day(self) -> int:
        """Days since 1970-01-01 (UTC)."""
        return self.time.date().toordinal() - 719_163
