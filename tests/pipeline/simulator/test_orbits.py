"""Swaths, suns and skies."""

from __future__ import annotations

import numpy as np
import pytest

from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_pipeline.simulator import benchmark_spec
from geofm_pipeline.simulator.climate import BELT
from geofm_pipeline.simulator.granules import extent_window, plan_granules
from geofm_pipeline.simulator.noise import tile_window
from geofm_pipeline.simulator.orbits import ORBITS, Overpass, overpasses, row_latitude, sun
from geofm_pipeline.simulator.sky import coverage, shadow_shift, sky

WINDOW = tile_window(tile_grid("32TNS"), 0, 0, 3660, 3660)


def test_share_is_the_mean_of_the_mask() -> None:
    """The share of a window that a swath covers equals the count of its pixels."""
    window = tile_window(tile_grid("32TNS"), 0, 0, 200, 3660)
    for overpass in list(overpasses("L30", window, (2022,)))[:6]:
        assert overpass.share(window) == pytest.approx(overpass.covered(window).mean())


def test_swaths_are_slanted_and_as_wide_as_the_sensor_says() -> None:
    """Edges run from north-east to south-west at 10 to 20 degrees; the width is the sensor's."""
    for sensor, orbit in ORBITS.items():
        overpass = next(iter(overpasses(sensor, WINDOW, (2022,))))
        left, right = overpass.edges(32, WINDOW.rows())
        assert np.abs((right - left) * 30 - 2 * orbit.half_swath_m).max() <= 60
        lean = np.degrees(np.arctan2(left[0] - left[-1], WINDOW.height - 1))
        assert 10 < lean < 20


def test_row_latitude_is_that_of_the_projection() -> None:
    """The quick latitude of lattice rows agrees with PROJ at the central meridian within 0.01°, both hemispheres."""
    rows = np.arange(-280_000, 280_001, 20_000)
    _, lat = unproject(32, np.full(rows.shape, 500_000.0), -30.0 * rows)
    np.testing.assert_allclose(row_latitude(rows), lat, atol=0.01)


def test_the_sun_stands_as_in_real_granules() -> None:
    """Zenith and azimuth agree with the tags of two real Landsat granules within a few degrees."""
    for tile, day, zenith, azimuth in (("06WVS", 19_842, 50.0, 168.4), ("15UXP", 20_005, 56.4, 162.3)):
        window = tile_window(tile_grid(tile), 1830, 1830, 1, 1)
        here = sun(Overpass(sensor="L30", track=0, day=day), window.rows())
        assert float(np.degrees(here.zenith[0])) == pytest.approx(zenith, abs=3)
        assert float(np.degrees(here.azimuth[0])) % 360 == pytest.approx(azimuth, abs=12)


def test_shadows_point_away_from_the_sun() -> None:
    """In the north in the morning the cloud that shades a pixel lies south-east of it, farther away in winter."""
    belt = WINDOW.row // BELT
    winter = shadow_shift(1, Overpass(sensor="S30", track=0, day=19_000), belt)
    summer = shadow_shift(1, Overpass(sensor="S30", track=0, day=19_180), belt)
    for down, right in (winter, summer):
        assert down > 0
        assert right > 0
    assert np.tan(0.5) < winter[0] / winter[1]


def test_clouds_meet_their_target() -> None:
    """Over many passes the share of opaque pixels follows the target coverage."""
    window = tile_window(tile_grid("32TNS"), 0, 0, BELT - 60, 900)
    targets, shares = [], []
    for overpass in list(overpasses("S30", window, (2022,)))[:40]:
        targets.append(coverage(5, overpass, window.row // BELT))
        shares.append(float(sky(5, overpass, window).cloud.mean()))
    assert np.corrcoef(targets, shares)[0, 1] > 0.75
    assert min(targets) < 0.05
    assert max(targets) > 0.9


def test_benchmark_granules_are_whole() -> None:
    """Every granule of the benchmark archive covers its whole tile."""
    spec = benchmark_spec()
    planned = plan_granules(spec)
    assert len(planned) >= 12
    for one in planned:
        assert one.overpass.share(extent_window(spec, one.tile)) == 1.0
