"""Who looks when: sun-synchronous tracks of both sensors, their swaths on the lattice, their sun.

Sentinel-2 A and B together repeat every 5 days, Landsat 8 and 9 every 8. A track is a descending pass with an
equator crossing of its own; its swath is 290 or 185 km wide and slanted, so a tile is often covered in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import PIXEL_M, Sensor
from geofm_pipeline.simulator.noise import Window
from geofm_sampling.hashing import hashed_uniform

_EARTH_M = 6_378_137.0
_SCALE = 0.9996  # UTM
_EAST_M = 500_000.0
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, kw_only=True)
class Orbit:
    """The repeating ground tracks of one sensor (all its satellites together)."""

    tracks: int
    """Descending equator crossings in a full cycle of one satellite."""
    first_deg: float
    """Longitude of the equator crossing of track 0."""
    repeat_days: int
    """Days after which the constellation sees a place from the same track again."""
    day_step: int
    """A track is seen so many days (modulo the repeat) after its western neighbour's number."""
    half_swath_m: float
    inclination_deg: float
    revolutions: float
    """Per day."""
    node_hour: float
    """Local solar time of the descending equator crossing."""
    scene_deg: float
    """Latitude range over which granules share one sensing time."""


ORBITS: dict[Sensor, Orbit] = {
    "L30": Orbit(
        tracks=233,
        first_deg=0.47,
        repeat_days=8,
        day_step=7,
        half_swath_m=92_500.0,
        inclination_deg=98.2,
        revolutions=14.56,
        node_hour=10.2,
        scene_deg=1.6,
    ),
    "S30": Orbit(
        tracks=143,
        first_deg=0.0,
        repeat_days=5,
        day_step=3,
        half_swath_m=145_000.0,
        inclination_deg=98.6,
        revolutions=14.30,
        node_hour=10.5,
        scene_deg=8.0,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Overpass:
    """One pass of one sensor along one track on one day."""

    sensor: Sensor
    track: int
    day: int
    """Days since 1970-01-01 (UTC)."""

    @property
    def word(self) -> int:
        """A number of its own for random streams."""
        return (self.day << 9 | self.track) << 1 | (self.sensor == "S30")

    def centre_x(self, zone: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Easting of the track's centre in metres for lattice rows, shape (n,)."""
        lat = np.radians(row_latitude(rows))
        lon = _track_longitude(ORBITS[self.sensor], self.track, lat)
        away = (lon - (6.0 * zone - 183.0) + 180.0) % 360.0 - 180.0
        return np.asarray(_EAST_M + np.radians(away) * np.cos(lat) * _EARTH_M * _SCALE)

    def edges(self, zone: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First lattice column with data and the first one behind it, for lattice rows."""
        centre = self.centre_x(zone, rows)
        half = ORBITS[self.sensor].half_swath_m
        left = np.ceil((centre - half) / PIXEL_M).astype(np.int64)
        return left, np.floor((centre + half) / PIXEL_M).astype(np.int64)

    def covered(self, window: Window) -> NDArray[np.bool_]:
        """True where the swath covers a pixel of the window."""
        left, right = self.edges(window.zone, window.rows())
        cols = window.cols()
        return np.asarray((cols >= left[:, None]) & (cols < right[:, None]))

    def share(self, window: Window) -> float:
        """Share of the window's pixels that the swath covers."""
        left, right = self.edges(window.zone, window.rows())
        inside = np.clip(right, window.col, window.col + window.width) - np.clip(
            left, window.col, window.col + window.width
        )
        return float(inside.mean()) / window.width

    def time(self, window: Window) -> datetime:
        """Sensing time (UTC, whole seconds) that the granule of this window bears in its id."""
        orbit = ORBITS[self.sensor]
        middle = np.array([window.row + window.height // 2])
        scene = np.clip(np.round(row_latitude(middle) / orbit.scene_deg) * orbit.scene_deg, -80, 80)
        lon = _track_longitude(orbit, self.track, np.radians(scene))
        jitter = hashed_uniform(self.track, "time", np.array([self.day], dtype=np.uint64)) * 40
        seconds = (_solar_hour(orbit, np.radians(scene)) - lon / 15.0) * 3600.0 + jitter
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=self.day, seconds=int(seconds[0] % 86_400))


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Position of the sun at a pass, per lattice row."""

    zenith: NDArray[np.float64]
    """Radians, shape (n,)."""
    azimuth: NDArray[np.float64]
    """Radians clockwise from north, shape (n,)."""


def sun(overpass: Overpass, rows: NDArray[np.int64]) -> Sun:
    """The sun over lattice rows at the pass."""
    day_of_year = date.fromordinal(overpass.day + _EPOCH).timetuple().tm_yday
    declination = np.radians(23.44) * np.sin(2 * np.pi * (day_of_year - 81) / 365.25)
    lat = np.radians(row_latitude(rows))
    hour = np.radians(15.0 * (_solar_hour(ORBITS[overpass.sensor], lat) - 12.0))
    cosine = np.sin(lat) * np.sin(declination) + np.cos(lat) * np.cos(declination) * np.cos(hour)
    zenith = np.arccos(np.clip(cosine, 0.12, 1.0))  # HLS is not made for the sun below 7°
    east = -np.cos(declination) * np.sin(hour)
    north = np.cos(lat) * np.sin(declination) - np.sin(lat) * np.cos(declination) * np.cos(hour)
    return Sun(zenith=zenith, azimuth=np.arctan2(east, north))


def row_latitude(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Latitude in degrees of lattice rows at the zone's centre (rectifying latitude, good to 0.01°)."""
    mu = -rows * (PIXEL_M / _SCALE / 6_367_449.146)
    return np.asarray(np.degrees(mu + 0.002518 * np.sin(2 * mu)))


def overpasses(sensor: Sensor, window: Window, years: tuple[int, ...]) -> Iterator[Overpass]:
    """All passes of a sensor in the years whose swath touches the window, by day."""
    orbit = ORBITS[sensor]
    tracks = [track for track in range(orbit.tracks) if _touches(sensor, track, window)]
    for year in years:
        for day in range(date(year, 1, 1).toordinal() - _EPOCH, date(year + 1, 1, 1).toordinal() - _EPOCH):
            for track in tracks:
                if (day - orbit.day_step * track) % orbit.repeat_days == 0:
                    yield Overpass(sensor=sensor, track=track, day=day)


def _touches(sensor: Sensor, track: int, window: Window) -> bool:
    rows = window.rows()[:: max(1, window.height // 8)]
    left, right = Overpass(sensor=sensor, track=track, day=0).edges(window.zone, rows)
    return bool(((left < window.col + window.width) & (right > window.col)).any())


def _track_longitude(orbit: Orbit, track: int, lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitude in degrees of a descending track at latitudes in radians."""
    east, flown = _descent(orbit, lat)
    lon = orbit.first_deg + 360.0 * track / orbit.tracks + np.degrees(east - flown / orbit.revolutions)
    return np.asarray((lon + 180.0) % 360.0 - 180.0)


def _solar_hour(orbit: Orbit, lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Local solar time of the pass at latitudes in radians: later in the north, where the orbit lies further east."""
    east, _ = _descent(orbit, lat)
    return np.asarray(orbit.node_hour + np.degrees(east) / 15.0)


def _descent(orbit: Orbit, lat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(longitude among the stars, angle flown) since the equator on a descending pass, radians; negative flown is
    before the equator."""
    inclination = np.radians(orbit.inclination_deg)
    flown = -np.arcsin(np.clip(np.sin(lat) / np.sin(inclination), -1, 1))
    u = np.pi + flown
    east = np.arctan2(np.cos(inclination) * np.sin(u), np.cos(u)) - np.pi
    return np.asarray((east + np.pi) % (2 * np.pi) - np.pi), flown
