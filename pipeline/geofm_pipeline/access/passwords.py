"""Tokens of single hosts, from the worker's own environment or netrc file: today that of the Earth Data Hub."""

from __future__ import annotations

import base64
import os
from urllib.parse import urlsplit

from geofm_pipeline.access.credentials import netrc_entry, netrc_path
from geofm_pipeline.access.services import Services

VARIABLE = "EARTHDATAHUB_TOKEN"


def basic_header(services: Services, url: str) -> dict[str, str]:
    """The Authorization header for the Earth Data Hub; none for any other host, or where there is no token."""
    if urlsplit(url).netloc.lower().removesuffix(":443") != services.era5_land_host:
        return {}
    entry = netrc_entry(netrc_path(), services.era5_land_host.partition(":")[0])
    token = os.environ.get(VARIABLE) or ("" if isinstance(entry, str) else entry[2])
    if not token:
        return {}
    pair = base64.b64encode(f"{services.era5_land_user}:{token}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}
