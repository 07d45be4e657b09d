"""Signed addresses that a data centre redirects to, kept as long as they are valid.

A protected file's address answers with a redirect to a signed one that serves every range of the file for most of an
hour; without this cache each block would cost two requests. How long is the least of what the redirect's Cache-Control
and the signature in the address say (thin-egress-app: max-age; S3: X-Amz-Date + X-Amz-Expires; CloudFront: Expires).
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

MARGIN_S = 60.0
"""A signed address is not used in its last minute: a request takes time, and clocks differ."""
_MOST = 16_384  # addresses of about a kilobyte
_MAX_AGE = re.compile(r"\bmax-age=(\d+)")


class Redirects:
    """Href → signed address; the least recently used go first."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def get(self, href: str) -> str | None:
        """A signed address that is still valid."""
        with self._lock:
            address, until = self._known.get(href, ("", 0.0))
            if self._clock() >= until:
                self._known.pop(href, None)
                return None
            self._known.move_to_end(href)
            return address

    def put(self, href: str, address: str, headers: Mapping[str, str]) -> None:
        """Keep an address for as long as it and the redirect's headers allow, if they allow it at all."""
        valid = lifetime_s(address, headers, self._clock())
        if valid is None or valid <= MARGIN_S:
            return
        with self._lock:
            self._known[href] = (address, self._clock() + valid - MARGIN_S)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)

    def drop(self, href: str, address: str) -> None:
        """Forget an address that was refused, unless another one has taken its place."""
        with self._lock:
            if self._known.get(href, ("", 0.0))[0] == address:
                del self._known[href]


def lifetime_s(address: str, headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a signed address stays valid; None where neither it nor the headers say.

    >>> lifetime_s("https://cdn/a.tif?Expires=1100&Signature=x", {}, now=1000.0)
    100.0
    """
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    said = []
    age = _MAX_AGE.search(headers.get("cache-control", ""))
    if age is not None and "no-store" not in headers["cache-control"]:
        said.append(float(age[1]))
    if query.get("Expires", "").isdigit():
        said.append(float(query["Expires"]) - now)
    try:
        if "X-Amz-Expires" in query:
            signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            said.append(signed.timestamp() + float(query["X-Amz-Expires"]) - now)
    except (KeyError, ValueError):
        return None
    return min(said) if said else None
