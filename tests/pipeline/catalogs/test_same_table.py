"""All services and dialects give the same SceneTable for the same granules."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pystac
import pytest
from servers.granule_items import same_table
from servers.planetary import BLOBS

from geofm_pipeline.catalogs import facts, find_scenes
from geofm_pipeline.region import parse_region
from geofm_pipeline.scenes import scene_refs
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-90,180,90")
YEAR = parse_years(2022)
SERVICES = ("geoparquet", "cmr", "cmr-stac", "planetary-computer")
REGIONS = ("-180,-90,180,90", "9,45,11,47", "170,-30,-170,60", "32TNS,19LBJ")


@pytest.fixture
def reference(items: list[dict[str, Any]], tmp_path: Path) -> str:
    """The items as an ItemCollection."""
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(path)


def _static(items: list[dict[str, Any]], root: Path) -> str:
    catalog = pystac.Catalog(id="archive", description="test")
    for item in copy.deepcopy(items):
        catalog.add_item(pystac.Item.from_dict(item))
    catalog.normalize_and_save(str(root / "static"), pystac.CatalogType.SELF_CONTAINED)
    return str(root / "static")


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gives_the_table_of_a_file(world: Any, reference: str, service: str, region: str) -> None:
    """Rows, order, cloud cover, footprints, absences and hrefs are those of an ItemCollection of the same granules; the
    Planetary Computer's differ in their hrefs, which are its own blobs, unsigned."""
    wanted = find_scenes(reference, parse_region(region), YEAR)
    found = find_scenes(service, parse_region(region), YEAR, access=world.access)
    if service == "planetary-computer":
        refs = scene_refs(found)
        assert all(href.startswith(f"{BLOBS}/") for ref in refs for href in (*ref.bands, ref.fmask) if href)
        assert not any("?" in href for ref in refs for href in ref.bands)
        found = _with_hrefs_of(found, wanted)
    assert same_table(found, wanted)
    assert facts(found)["service"] == service


def _with_hrefs_of(found: pa.Table, wanted: pa.Table) -> pa.Table:
    for name in ("href_template", "hrefs"):
        found = found.set_column(found.schema.get_field_index(name), found.schema.field(name), wanted[name])
    return found


@pytest.mark.parametrize("place", ["path", "url", "bucket"])
def test_a_static_catalogue_gives_the_same_table(
    world: Any, items: list[dict[str, Any]], reference: str, tmp_path: Path, place: str
) -> None:
    """On disk, on a web server and in a bucket; links and hrefs may be relative."""
    folder = Path(_static(items, tmp_path))
    world.bucket.files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.json")}
    roots = {"path": str(folder), "url": f"{world.server.url}/catalog.json"}
    catalog = roots.get(place, f"s3://{world.bucket.name}/catalog.json")
    found = find_scenes(catalog, EARTH, YEAR, access=world.access)
    assert same_table(found, find_scenes(reference, EARTH, YEAR))


@pytest.mark.parametrize("scheme", ["https-like", "s3"])
def test_a_parquet_file_behind_a_network_is_read_by_ranges(
    world: Any, items: list[dict[str, Any]], reference: str, scheme: str
) -> None:
    """Without fetching it whole, by URL or from a bucket."""
    month = next(key for key in world.bucket.files if key.endswith("HLSS30_2.0-2022-5.parquet"))
    root = world.server.url if scheme == "https-like" else f"s3://{world.bucket.name}"
    found = find_scenes(f"{root}/{month}", EARTH, YEAR, access=world.access)
    own = [item["id"] for item in items if item["id"][4:7] == "S30" and item["properties"]["datetime"][5:7] == "05"]
    assert sorted(found["granule_id"].to_pylist()) == sorted(own)
    assert all("range" in request.headers for request in world.bucket.log)


@pytest.mark.parametrize("service", SERVICES)
def test_no_catalogue_is_sent_a_credential(world: Any, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    """A token in the environment stays there; no cloud filter is sent either."""
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    find_scenes(service, EARTH, YEAR, access=world.access)
    assert world.server.log
    for request in world.server.log:
        assert "authorization" not in request.headers
        assert "planted" not in f"{request.path}{request.query}{request.headers}"
        assert not [name for name in request.query if "cloud" in name]
