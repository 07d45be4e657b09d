"""Whether this machine stands in a region of Amazon's: the only place where temporary S3 keys of NASA work.

The environment decides where it says something (containers and batch systems set it), else the machine's own metadata
service, asked once per process. Costs at most a second on a machine that has none.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from geofm_pipeline.access.services import Services

_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_TIMEOUT_S = 0.5
"""Of each of the two requests; the service answers within milliseconds or is not there."""
_known: dict[str, str] = {}
_lock = threading.Lock()


def in_region(services: Services, environment: Mapping[str, str], region: str) -> bool:
    """Whether S3 in `region` is near: by the environment's word, else by the metadata service's."""
    said = next((environment[name] for name in _VARIABLES if environment.get(name)), None)
    return (machine_region(services.instance_metadata) if said is None else said) == region


def machine_region(address: str) -> str:
    """Region of this machine by the metadata service at `address`; '' where it is no machine of Amazon's."""
    if not address:
        return ""
    with _lock:
        if address not in _known:
            _known[address] = _ask(address)
        return _known[address]


def _ask(address: str) -> str:
    """IMDSv2: a session token by PUT, then the question. Never by a proxy, which would ask from another machine."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=_TIMEOUT_S)
    try:
        token = _send(connection, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        region = _send(connection, "GET", "/latest/meta-data/placement/region", {"X-aws-ec2-metadata-token": token})
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return region if token else ""


def _send(connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, str]) -> str:
    connection.request(method, path, headers=dict(headers))
    answer = connection.getresponse()
    body = answer.read()
    return body.decode("latin-1").strip() if answer.status == 200 else ""
