"""Signatures of the Planetary Computer's blobs, fetched once per container and again before they expire.

Signing costs no request but the first of a container and one per lifetime (about 45 minutes) after it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from geofm_pipeline.access.answers import come_again, document, said
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import Response
from geofm_pipeline.access.services import Services

EARLY_S = 120.0
"""Renewed so long before expiry: a request waits for its turn, and clocks differ."""
_YOUNG_S = 10.0
"""A signature younger than this was fetched after a refused request had been sent, so it is not the refused one."""
_AGAIN = re.compile(r"[Tt]ry again in (\d+) seconds")


@dataclass(frozen=True, kw_only=True)
class _Signature:
    query: str = field(repr=False)
    since: float
    until: float
    """Seconds of the clock: when it was fetched, and when another is due."""


class Signatures:
    """Signs addresses of blobs, from any thread; one request at a time to the signing service.

    Parameters
    ----------
    services : the signing service and the accounts whose blobs need a signature
    fetch : sends one GET and returns the answer whatever its status
    clock : seconds since 1970
    """

    def __init__(
        self, services: Services, fetch: Callable[[str], Response], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._services, self._fetch, self._clock = services, fetch, clock
        self._lock = threading.Lock()
        self._known: dict[str, _Signature] = {}

    def sign(self, url: str) -> str:
        """The address with its container's signature; unchanged if it needs none or carries one.

        Raises
        ------
        FetchError
            When the signing service gives none; transient where asking again may help.
        """
        place = self._place(url)
        if not place:
            return url
        known = self._known.get(place)
        if known is None or known.until <= self._clock():
            known = self._renewed(place)
        return f"{url}{'&' if '?' in url else '?'}{known.query}"

    def forget(self, url: str) -> None:
        """A blob's server refused the signature: fetch another next time."""
        with self._lock:
            known = self._known.get(self._place(url))
            if known is not None and self._clock() - known.since >= _YOUNG_S:
                del self._known[self._place(url)]

    def _place(self, url: str) -> str:
        """`account/container` of a blob that needs a signature, else ''."""
        parts = urlsplit(url)
        account = parts.netloc.removesuffix(self._services.blob_suffix)
        if account == parts.netloc or account not in self._services.signed_accounts or "sig" in parse_qs(parts.query):
            return ""
        return f"{account}/{parts.path.lstrip('/').partition('/')[0]}"

    def _renewed(self, place: str) -> _Signature:
        with self._lock:
            known = self._known.get(place)  # another thread may have been faster
            if known is None or known.until <= self._clock():
                known = self._asked(place)
                self._known[place] = known
            return known

    def _asked(self, place: str) -> _Signature:
        response = self._fetch(f"{self._services.sas}/{place}")
        if response.status != 200:
            raise _refusal(response)
        if response.is_html:
            raise FetchError(Fault.HTML, "an HTML page instead of a signature of the Planetary Computer")
        found, now = document(response), self._clock()
        query, until = str(found.get("token") or "").lstrip("?"), _seconds(found.get("msft:expiry"))
        if not query or until is None:
            raise FetchError(Fault.LOGIN, "the Planetary Computer's answer holds no signature with a time of expiry")
        # A clock that is far ahead must not make each read fetch a signature of its own.
        return _Signature(query=query, since=now, until=max(until - EARLY_S, now + _YOUNG_S))


def _refusal(response: Response) -> FetchError:
    later = come_again(response)
    if later is None:
        words = f"the Planetary Computer gave no signature ({response.status}{said(response)})"
        return FetchError(Fault.REFUSED, words)
    wait = _AGAIN.search(response.body.decode("latin-1"))  # its rate limit says so in words only
    if later.retry_after_s is None and wait is not None:
        later.retry_after_s = float(wait[1])
    return later


def _seconds(text: object) -> float | None:
    """Seconds since 1970 of a time like 2021-04-08T18:49:29Z."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
