"""One loopback server that is all services at once, over the simulated archive's granules and a few odd ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from servers.bucket import PublicBucket
from servers.cmr import Cmr
from servers.cmr_stac import StacApi
from servers.faulty import Faulty
from servers.granule_items import make_item
from servers.loopback import Loopback, Reply, Request, serving
from servers.monthly_archive import PREFIX, monthly_files
from servers.planetary import planetary_computer

from geofm_pipeline.access.services import Bucket, Services
from geofm_pipeline.access.settings import Access
from geofm_pipeline.simulator import Archive

Items = list[dict[str, Any]]
MONTHS = [(2021, 12), *((2022, month) for month in range(1, 13)), (2023, 1)]


def lp_daac(name: str) -> str:
    """Where LP DAAC keeps a granule's folder."""
    return f"https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLS{name[4:7]}.020"


def odd_items() -> Items:
    """On the antimeridian, clockwise, southern, without cloud cover, without assets, two of one tile and day."""
    names = {
        "HLS.S30.T01KAB.2022150T221010.v2.0": 3,
        "HLS.L30.T19LBJ.2022239T144556.v2.0": 0,
        "HLS.S30.T32UNU.2022101T101020.v2.0": None,
        "HLS.S30.T32UNU.2022101T103020.v2.0": 100,
        "HLS.L30.T32UNU.2022001T000004.v2.0": 40,
        "HLS.S30.T60VXQ.2022151T001010.v2.0": 55,
    }
    found = [make_item(name, cloud=cloud, folder=lp_daac(name)) for name, cloud in names.items()]
    found[1]["geometry"]["coordinates"][0].reverse()
    del found[2]["assets"]["Fmask"], found[4]["assets"]["B05"], found[4]["assets"]["B07"]
    found[5]["bbox"] = [179.1, 57.0, -179.5, 58.0]
    found[5]["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[179.2, 57.0], [-179.6, 57.0], [-179.5, 58.0], [179.1, 58.0], [179.2, 57.0]]],
    }
    return found


@pytest.fixture(scope="session")
def all_items(tiny_archive: Archive) -> Items:
    """Granules of 2022 with the hrefs of LP DAAC; never change them."""
    found: Items = json.loads(tiny_archive.items.read_text())["features"]
    for item in found:
        name = item["id"]
        for key, asset in item["assets"].items():
            asset["href"] = f"{lp_daac(name)}/{name}/{name}.{key}.tif"
    return [*found, *odd_items()]


@pytest.fixture(scope="session")
def all_months(all_items: Items) -> dict[str, bytes]:
    """The items as files of the GeoParquet archive."""
    return monthly_files(all_items, MONTHS)


@pytest.fixture
def items(all_items: Items) -> Items:
    """Items of one's own."""
    return copy.deepcopy(all_items)


@dataclass
class World:
    """All services on one loopback server, each with faults of its own on demand."""

    cmr: Cmr
    cmr_stac: StacApi
    planetary: StacApi
    bucket: PublicBucket
    faults: dict[str, Faulty] = field(default_factory=dict)
    """By name of the service."""
    server: Loopback = field(default_factory=lambda: Loopback(lambda request: Reply(status=404)))

    def __post_init__(self) -> None:
        apps = {"cmr": self.cmr, "cmr-stac": self.cmr_stac, "planetary-computer": self.planetary}
        self.faults = {name: Faulty(app) for name, app in (apps | {"geoparquet": self.bucket}).items()}

    def __call__(self, request: Request) -> Reply:
        places = {"/search/": "cmr", self.cmr_stac.root: "cmr-stac", self.planetary.root: "planetary-computer"}
        name = next((name for start, name in places.items() if request.path.startswith(start)), "geoparquet")
        return self.faults[name](request)

    @property
    def access(self) -> Access:
        """Everything at the server, with little patience."""
        url = self.server.url
        services = Services(
            geoparquet=f"s3://{self.bucket.name}/{PREFIX}",
            cmr=url,
            cmr_stac=self.cmr_stac.address,
            planetary_computer=self.planetary.address,
            buckets={self.bucket.name: Bucket(region="us-west-2", endpoint=url)},
        )
        return Access(services=services, attempts=4, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=20, stall_s=1)

    def without(self, *names: str) -> Access:
        """Access whose services of these names are at a port where nobody listens."""
        gone = "http://127.0.0.1:9"
        fields = {name.replace("-", "_"): gone for name in names}
        access = self.access
        return replace(access, attempts=1, services=replace(access.services, **fields))


@pytest.fixture
def world(items: Items, all_months: dict[str, bytes]) -> Iterator[World]:
    """The services, running."""
    made = World(
        cmr=Cmr(items),
        cmr_stac=StacApi(items),
        planetary=planetary_computer(items),
        bucket=PublicBucket(dict(all_months)),
    )
    with serving(made) as server:
        made.server = server
        made.cmr_stac.url = made.planetary.url = server.url
        yield made
