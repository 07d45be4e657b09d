"""Signed addresses are kept exactly as long as they say."""

from __future__ import annotations

import pytest

from geofm_pipeline.access.redirects import MARGIN_S, Redirects, lifetime_s

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("address", "headers", "seconds"),
    [
        (f"https://cdn/x?Expires={NOW + 3000:.0f}&Signature=a", {}, 3000.0),
        ("https://s3/x?X-Amz-Date=20231114T221320Z&X-Amz-Expires=1800&X-Amz-Signature=a", {}, 1800.0),
        ("https://s3/x?X-Amz-Date=20231114T220320Z&X-Amz-Expires=1800", {}, 1200.0),
        ("https://cdn/x", {"cache-control": "private, max-age=2940"}, 2940.0),
        (f"https://cdn/x?Expires={NOW + 3000:.0f}", {"cache-control": "private, max-age=100"}, 100.0),
        ("https://cdn/x", {}, None),
        ("https://cdn/x?Expires=Tuesday", {}, None),
        ("https://s3/x?X-Amz-Date=yesterday&X-Amz-Expires=1800", {}, None),
        ("https://cdn/x", {"cache-control": "no-store, max-age=2940"}, None),
    ],
)
def test_the_shortest_promise_counts(address: str, headers: dict[str, str], seconds: float | None) -> None:
    """CloudFront's and S3's expiry and the redirect's max-age: the least of what is said, None where nothing is."""
    assert lifetime_s(address, headers, NOW) == seconds


def test_an_address_is_used_until_a_minute_before_its_end() -> None:
    """It serves every range until then and not one second longer."""
    now = [NOW]
    known = Redirects(lambda: now[0])
    known.put("h", f"https://cdn/x?Expires={NOW + 1000:.0f}", {})
    now[0] = NOW + 1000 - MARGIN_S - 1
    assert known.get("h") == f"https://cdn/x?Expires={NOW + 1000:.0f}"
    now[0] += 1
    assert known.get("h") is None


def test_what_does_not_last_is_not_kept() -> None:
    """A redirect without a promise, or with one shorter than the margin, is asked for again each time."""
    known = Redirects(lambda: NOW)
    known.put("a", "https://cdn/x", {})
    known.put("b", "https://cdn/x", {"cache-control": "max-age=30"})
    assert (known.get("a"), known.get("b")) == (None, None)


def test_only_the_refused_address_is_dropped() -> None:
    """A thread that was refused late does not throw away what another one has renewed meanwhile."""
    known = Redirects(lambda: NOW)
    known.put("h", "https://cdn/new", {"cache-control": "max-age=1000"})
    known.drop("h", "https://cdn/old")
    assert known.get("h") == "https://cdn/new"
    known.drop("h", "https://cdn/new")
    assert known.get("h") is None
