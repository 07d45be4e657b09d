"""Promises of the question where this machine stands; the real metadata service is never asked here."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers.earthdata import Nasa
from servers.loopback import Reply

from geofm_pipeline.access import region
from geofm_pipeline.access.region import in_region
from geofm_pipeline.access.services import Services


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """A port of loopback may come again with another server behind it."""
    region._known.clear()
    yield
    region._known.clear()


@pytest.mark.parametrize(
    ("environment", "near"),
    [
        ({"AWS_REGION": "us-west-2"}, True),
        ({"AWS_DEFAULT_REGION": "us-west-2"}, True),
        ({"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "us-west-2"}, False),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-west-2"}, True),
    ],
)
def test_the_environment_decides_where_it_says_something(earth: Nasa, environment: dict[str, str], near: bool) -> None:
    """AWS_REGION, else AWS_DEFAULT_REGION; then nobody is asked."""
    earth.machine_region = "us-west-2"
    assert in_region(earth.services(), environment, "us-west-2") == near
    assert earth.counts["questions"] == 0


def test_the_metadata_service_is_asked_once(earth: Nasa) -> None:
    """By version 2 of its protocol, once per process whatever number of threads ask."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: in_region(earth.services(), {}, "us-west-2"), range(16)))
    assert found == {True}
    assert [(r.method, r.path) for r in earth.servers["machine"].log] == [
        ("PUT", "/latest/api/token"),
        ("GET", "/latest/meta-data/placement/region"),
    ]
    assert not in_region(earth.services(), {}, "eu-central-1")
    assert earth.counts["questions"] == 2


def test_a_proxy_is_never_asked_for_the_region(earth: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """It would answer for the machine that it runs on."""
    logged_out.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    logged_out.setenv("http_proxy", "http://127.0.0.1:9")
    assert in_region(earth.services(), {}, "us-west-2")


def test_a_machine_elsewhere(earth: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """No service, one that refuses, hangs or talks nonsense: not in the region, and it is not asked again."""
    logged_out.setattr(region, "_TIMEOUT_S", 0.05)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert not in_region(Services(instance_metadata=nobody), {}, "us-west-2")
    assert not in_region(Services(instance_metadata=""), {}, "us-west-2")
    for reply in (Reply(status=404), Reply(reset=True), Reply(body=b"us-west-2", wait_s=0.5), Reply(body=b"<html>")):
        region._known.clear()
        earth.before = lambda role, request, reply=reply: reply  # type: ignore[misc]
        assert not in_region(earth.services(), {}, "us-west-2")
        asked = len(earth.servers["machine"].log)
        assert not in_region(earth.services(), {}, "us-west-2")
        assert len(earth.servers["machine"].log) == asked
