"""Keys of buckets that are no service of ours, as Amazon's own tools find them: the only botocore user.

Variables (AWS_ACCESS_KEY_ID …), shared files and machine roles, in botocore's order; AWS_ENDPOINT_URL names another
S3-compatible server. A worker's own credentials, so they are read where the worker runs.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError

from geofm_pipeline.access.http import Signature

_NONE_S = 60.0
"""So long it is remembered that there are no keys."""
_none_until: dict[int, float] = {}


@lru_cache(maxsize=1)
def _session(process: int) -> Any:
    return botocore.session.get_session()


def environment_signature(region: str) -> Signature | None:
    """Keys of this machine, renewed by botocore when they are temporary; None where it has none."""
    if time.monotonic() < _none_until.get(os.getpid(), 0.0):
        return None
    try:
        found = _session(os.getpid()).get_credentials()
    except BotoCoreError:
        return None
    if found is None:  # botocore would ask the machine's metadata service at each request
        _none_until[os.getpid()] = time.monotonic() + _NONE_S
        return None
    keys = found.get_frozen_credentials()
    return Signature(
        access_key=keys.access_key, secret_key=keys.secret_key, session_token=keys.token or "", region=region
    )


def environment_region() -> str:
    """Region of this machine's configuration, else us-east-1, as Amazon's tools have it."""
    return str(_session(os.getpid()).get_config_variable("region") or "us-east-1")


def environment_endpoint() -> str:
    """Endpoint of another S3-compatible server, '' for Amazon's own."""
    return (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "").rstrip("/")
