"""Access for tests: services on a loopback server, little patience, and apps that fail in one way."""

from __future__ import annotations

from typing import Any

from geofm_pipeline.access.services import Bucket, Services
from geofm_pipeline.access.settings import Access
from servers.loopback import App, Loopback, Reply, Request
from servers.maps import ACCESS_DENIED


def reach(server: Loopback | None = None, **services: Any) -> Access:
    """Access with little patience; buckets and Google's storage are at the server."""
    url = "http://127.0.0.1:9" if server is None else server.url
    names = ("esa-worldcover", "io-10m-annual-lulc")
    buckets = {name: Bucket(region="eu-central-1", endpoint=url) for name in names}
    return Access(
        services=Services(buckets=buckets, google_storage=url, **services), attempts=3, first_wait_s=0.01, timeout_s=5.0
    )


def html_page(request: Request) -> Reply:
    return Reply(body=b"<html>please log in</html>", headers={"Content-Type": "text/html"})


def refusing(status: int) -> App:
    return lambda request: Reply(status=status, body=ACCESS_DENIED if status == 403 else b"")
