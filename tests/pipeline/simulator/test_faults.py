"""Each fault does what its sentence says, and nothing else is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioIOError

from geofm_pipeline.hls import fmask as fm
from geofm_pipeline.hls.bands import BAND_FILES, BANDS
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.simulator import FAULTS, Archive, ArchiveSpec, Extent, build_archive
from geofm_pipeline.simulator.granules import Planned, plan_granules
from geofm_pipeline.simulator.spec import resolve_faults

SPEC = ArchiveSpec(
    tiles=("32TNS",),
    years=(2022,),
    seed=119,
    extents={"32TNS": Extent(row=2950, col=1280, height=700, width=700)},
    per_year=9,
    choices=3,
    faults=tuple(FAULTS),
)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One tile with every fault once."""
    return build_archive(SPEC, tmp_path_factory.mktemp("faulty") / "archive")


def victim(fault: str) -> Planned:
    """The granule that suffers a fault."""
    (found,) = [planned for planned in plan_granules(SPEC) if planned.fault == fault]
    return found


def item(archive: Archive, name: str) -> dict[str, object]:
    """The item of a granule."""
    (found,) = [i for i in json.loads(archive.items.read_text())["features"] if i["id"] == name]
    assert isinstance(found, dict)
    return found


def path(archive: Archive, planned: Planned, band: str) -> Path:
    """File of a canonical band."""
    key = BAND_FILES[planned.overpass.sensor][band]
    return archive.root / planned.granule_id / f"{planned.granule_id}.{key}.tif"


def test_every_fault_hits_a_granule_of_its_own() -> None:
    """With enough granules no two faults meet, and most granules stay whole."""
    planned = plan_granules(SPEC)
    assert sorted(p.fault for p in planned if p.fault) == sorted(FAULTS)
    assert sum(not p.fault for p in planned) >= 2


def test_missing_asset(faulty: Archive) -> None:
    """SWIR 2 is neither on disk nor in the item; the other six assets are."""
    planned = victim("missing_asset")
    assert not path(faulty, planned, "swir2").exists()
    assets = item(faulty, planned.granule_id)["assets"]
    assert isinstance(assets, dict)
    assert len(assets) == 6
    assert BAND_FILES[planned.overpass.sensor]["swir2"] not in assets


def test_truncated_file(faulty: Archive) -> None:
    """The near infrared opens, but its last blocks cannot be read."""
    with rasterio.open(path(faulty, victim("truncated_file"), "nir_narrow")) as source:
        assert source.shape == (3660, 3660)
        with pytest.raises(RasterioIOError):
            source.read(1)


def test_duplicate_tile_day(faulty: Archive) -> None:
    """Two granules of one S30 tile-day exist, with different ids."""
    names = [GranuleId.parse(folder.name) for folder in faulty.root.glob("HLS.?30.*")]
    keys = [(name.sensor, name.tile, name.day) for name in names]
    twice = {key for key in keys if keys.count(key) == 2}
    assert len(twice) == 1
    assert next(iter(twice))[0] == "S30"


def test_wrong_scale_tag(faulty: Archive) -> None:
    """Red claims a scale of 0.001 while its counts are as in any other band."""
    planned = victim("wrong_scale_tag")
    with rasterio.open(path(faulty, planned, "red")) as source:
        assert source.scales == (1e-3,)
        assert source.tags()["scale_factor"] == "0.001"
    with rasterio.open(path(faulty, planned, "green")) as source:
        assert source.scales == (1e-4,)


def test_sparse_zero_cloud(faulty: Archive) -> None:
    """3 % of the tile has data, all of it cloud, and item and tag say 0 % cloud."""
    planned = victim("sparse_zero_cloud")
    with rasterio.open(faulty.root / planned.granule_id / f"{planned.granule_id}.Fmask.tif") as source:
        mask, tags = source.read(1), source.tags()
    assert fm.spatial_coverage(mask) == int(tags["spatial_coverage"]) == 3
    assert fm.cloud_cover(mask) == 100
    assert tags["cloud_coverage"] == "0"
    properties = item(faulty, planned.granule_id)["properties"]
    assert isinstance(properties, dict)
    assert properties["eo:cloud_cover"] == 0


def test_html_page(faulty: Archive) -> None:
    """Blue is the login page that a server sends instead of a file."""
    data = path(faulty, victim("html_page"), "blue").read_bytes()
    assert data.startswith(b"<!DOCTYPE html>")
    assert b"Earthdata Login" in data


def test_impossible_fmask(faulty: Archive) -> None:
    """The Fmask holds codes that v2.0 never writes; all other granules have none."""
    for folder in faulty.root.glob("HLS.?30.*"):
        with rasterio.open(folder / f"{folder.name}.Fmask.tif") as source:
            share = fm.impossible_share(source.read(1))
        assert (share > 0) == (folder.name == victim("impossible_fmask").granule_id), folder.name


def test_granules_without_a_fault_are_whole(faulty: Archive) -> None:
    """Every other file reads to the end."""
    for planned in plan_granules(SPEC):
        if not planned.fault:
            for band in BANDS:
                with rasterio.open(path(faulty, planned, band)) as source:
                    assert source.read(1).dtype == np.int16


def test_faults_resolve_by_name() -> None:
    """`all` stands for every fault; order and repeats do not matter; unknown names stay to be refused by the spec."""
    assert resolve_faults(["all"]) == tuple(FAULTS)
    assert resolve_faults(["html_page", "missing_asset", "html_page"]) == ("missing_asset", "html_page")
    assert resolve_faults(["gremlins"]) == ("gremlins",)
