"""Tokens of single hosts, from the worker's own environment or netrc file: today that of the Earth Data Hub."""

from __future__ import annotations

import base64
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from geofm_pipeline.access.services import Services

VARIABLE = "EARTHDATAHUB_TOKEN"


def basic_header(services: Services, url: str) -> dict[str, str]:
    """The Authorization header for the Earth Data Hub; none for any other host, or where there is no token."""
    if urlsplit(url).netloc.lower().removesuffix(":443") != services.era5_land_host:
        return {}
    token = os.environ.get(VARIABLE) or _netrc_password(services.era5_land_host)
    if not token:
        return {}
    pair = base64.b64encode(f"{services.era5_land_user}:{token}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _netrc_password(host: str) -> str:
    try:
        path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        known = netrc.netrc(str(path)).hosts.get(host.partition(":")[0])
    except (OSError, RuntimeError, netrc.NetrcParseError):  # RuntimeError: a user without a home
        return ""
    return known[2] if known else ""
