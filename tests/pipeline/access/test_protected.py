"""Promises of reading NASA's protected files: few requests, renewed credentials, a refusal that says what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from nasa_fixtures import CONTENT, PROTECTED
from servers.earthdata import Nasa
from servers.loopback import Reply, Request

from geofm_pipeline.access import region
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.settings import Access, Route
from geofm_pipeline.access.source import ArchiveSource

_serial = count()


def reader(earth: Nasa, hasty: Access, route: Route = "https") -> ArchiveSource:
    """A source of a process of its own, as it were: other settings share no credentials."""
    patience = dataclasses.replace(hasty, services=earth.services(), route=route, stall_s=60.0 + next(_serial))
    return ArchiveSource(patience)


@pytest.fixture
def logged_in(earth: Nasa, logged_out: pytest.MonkeyPatch) -> Nasa:
    """A good token in the environment, and a machine that the metadata service is asked anew for."""
    region._known.clear()
    logged_out.setenv("EARTHDATA_TOKEN", earth.new_token())
    return earth


@pytest.mark.parametrize("form", ["cloudfront", "s3"])
def test_a_file_costs_one_redirect_and_then_one_request_per_range(logged_in: Nasa, hasty: Access, form: str) -> None:
    """The signed address serves every range; the token goes to the distribution only, never to where it redirects."""
    logged_in.signature = form  # type: ignore[assignment]
    source = reader(logged_in, hasty)
    for start in range(0, 20_000, 1000):
        assert source.read(logged_in.href(PROTECTED), start, 1000) == CONTENT[start : start + 1000]
    assert source.size(logged_in.href(PROTECTED)) == len(CONTENT)
    assert source.read_all(logged_in.href(PROTECTED)) == CONTENT
    assert logged_in.counts["redirects"] == 1
    assert source.tally.requests == 23
    assert all("authorization" not in request.headers for request in logged_in.servers["cdn"].log)


@pytest.mark.parametrize("form", ["cloudfront", "s3"])
def test_a_signed_address_that_expires_is_asked_for_again(logged_in: Nasa, hasty: Access, form: str) -> None:
    """In the middle of reading, and for many threads at once: no read fails, and it is counted."""
    logged_in.signature = form  # type: ignore[assignment]
    source = reader(logged_in, hasty)

    def read(start: int) -> bytes:
        return source.read(logged_in.href(PROTECTED), start, 100)

    read(0)
    logged_in.expire_addresses()
    with ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(read, range(0, 4000, 100))) == CONTENT[:4000]
    assert 2 <= logged_in.counts["redirects"] <= 9
    assert source.tally.retries["address renewed"] >= 1


def test_addresses_that_live_for_less_than_a_minute_are_used_once(logged_in: Nasa, hasty: Access) -> None:
    """What expires soon is not kept."""
    logged_in.address_s = 30
    source = reader(logged_in, hasty)
    for _ in range(3):
        assert source.read(logged_in.href(PROTECTED), 0, 10) == CONTENT[:10]
    assert logged_in.counts["redirects"] == 3


def test_a_token_that_expires_in_the_middle_of_a_run_is_renewed(
    earth_by_name: Nasa, logged_out: pytest.MonkeyPatch, hasty: Access
) -> None:
    """User and password: one login more for all threads, and every byte is right."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", earth_by_name.users["ada"])
    earth_by_name.address_s = 30  # so that every read asks the distribution
    source = reader(earth_by_name, dataclasses.replace(hasty, timeout_s=5.0, connect_timeout_s=5.0))

    def read(start: int) -> bytes:
        if start == 1000:
            earth_by_name.expire_tokens()
        return source.read(earth_by_name.href(PROTECTED), start, 100)

    with ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(read, range(0, 4000, 100))) == CONTENT[:4000]
    assert earth_by_name.counts["logins"] == 2
    assert source.tally.retries["login renewed"] >= 1


@pytest.mark.parametrize(
    ("trouble", "fault", "words"),
    [
        ("no credentials", Fault.LOGIN, "no NASA Earthdata credentials"),
        ("expired", Fault.EXPIRED, "expired on 20"),
        ("revoked", Fault.EXPIRED, "revoked"),
        ("nonsense", Fault.EXPIRED, "is no token of NASA"),
        ("licence", Fault.EULA, "/approve_app?client_id=lpdaac"),
        ("html", Fault.HTML, "an HTML page instead of data"),
        ("missing", Fault.MISSING, "no such file"),
    ],
)
def test_a_refusal_is_told_apart_and_not_repeated(
    logged_in: Nasa, logged_out: pytest.MonkeyPatch, hasty: Access, trouble: str, fault: Fault, words: str
) -> None:
    """Each has its own words; only a missing file says something of the file; the login service is left alone."""
    token = {"expired": logged_in.new_token(lasts_s=-60, accepted=False), "nonsense": "nonsense"}.get(trouble)
    if token:
        logged_out.setenv("EARTHDATA_TOKEN", token)
    if trouble == "no credentials":
        logged_out.delenv("EARTHDATA_TOKEN")
    if trouble == "revoked":
        logged_in.expire_tokens()
    logged_in.licence_accepted, logged_in.html = trouble != "licence", trouble == "html"
    source = reader(logged_in, hasty)
    with pytest.raises(FetchError) as caught:
        source.read(logged_in.href(PROTECTED + ("x" if trouble == "missing" else "")), 0, 10)
    assert caught.value.fault == fault
    assert words in str(caught.value)
    assert caught.value.stops_the_run == (trouble != "missing")
    assert all(secret not in repr(caught.value) for secret in [*logged_in.given, "nonsense"] if secret != words)
    assert len(logged_in.servers["distribution"].log) <= 1
    assert logged_in.servers["login"].log == []


# --- S3


def test_near_the_archive_files_are_read_by_s3(logged_in: Nasa, hasty: Access) -> None:
    """The metadata service says us-west-2: temporary keys once, then signed reads that botocore agrees with."""
    source = reader(logged_in, hasty, "auto")
    for start in range(0, 5000, 1000):
        assert source.read(logged_in.href(PROTECTED), start, 1000) == CONTENT[start : start + 1000]
    assert logged_in.counts["s3 reads"] == 5
    assert logged_in.counts["keys"] == 1
    assert logged_in.counts["redirects"] == 0


def test_far_from_the_archive_files_are_read_by_https(logged_in: Nasa, hasty: Access) -> None:
    """Another region, or no machine of Amazon's: no keys are asked for."""
    logged_in.machine_region = "eu-central-1"
    source = reader(logged_in, hasty, "auto")
    assert source.read(logged_in.href(PROTECTED), 0, 100) == CONTENT[:100]
    assert (logged_in.counts["redirects"], logged_in.counts["keys"]) == (1, 0)


def test_keys_that_expire_in_the_middle_of_a_run_are_renewed(logged_in: Nasa, hasty: Access) -> None:
    """One request for other keys for all threads, and every byte is right."""
    source = reader(logged_in, hasty, "s3")

    def read(start: int) -> bytes:
        if start == 1000:
            logged_in.expire_keys()
        return source.read(logged_in.href(PROTECTED), start, 100)

    with ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(read, range(0, 4000, 100))) == CONTENT[:4000]
    assert logged_in.counts["keys"] == 2
    assert source.tally.retries["keys renewed"] >= 1


def test_where_s3_refuses_the_run_goes_on_by_https(logged_in: Nasa, hasty: Access) -> None:
    """AWS_REGION says that the machine is near, S3 that it is not: https from then on, and it is counted."""
    logged_in.near = False
    source = reader(logged_in, hasty, "auto")
    assert source.read(logged_in.href(PROTECTED), 0, 100) == CONTENT[:100]
    assert source.read(logged_in.href(PROTECTED), 100, 100) == CONTENT[100:200]
    assert source.tally.retries["https instead of s3"] == 1
    assert len(logged_in.servers["s3"].log) == 1


def test_s3_alone_from_elsewhere_says_that_it_is_the_wrong_region(logged_in: Nasa, hasty: Access) -> None:
    """Who asked for S3 and nothing else is told where it works."""
    logged_in.near = False
    with pytest.raises(FetchError, match="region") as caught:
        reader(logged_in, hasty, "s3").read(logged_in.href(PROTECTED), 0, 100)
    assert caught.value.fault == Fault.REGION


@pytest.mark.parametrize("route", ["https", "s3"])
def test_outages_are_waited_for(logged_in: Nasa, hasty: Access, route: Route) -> None:
    """A storm of 5xx, resets and 429 at every server between the reader and its bytes: the bytes are right."""
    logged_in.before = storm()
    source = reader(logged_in, dataclasses.replace(hasty, attempts=12), route)
    for start in range(0, 4000, 500):
        assert source.read(logged_in.href(PROTECTED), start, 500) == CONTENT[start : start + 500]
    assert source.tally.retry_count >= 4


def storm() -> Callable[[str, Request], Reply | None]:
    """Two of three requests to each server go wrong."""
    seen: dict[str, int] = {}
    bad = [Reply(status=502), Reply(status=429, headers={"Retry-After": "0"}), Reply(reset=True), Reply(status=500)]

    def before(role: str, request: Request) -> Reply | None:
        seen[role] = number = seen.get(role, -1) + 1
        return None if number % 3 == 2 else bad[number % len(bad)]

    return before
