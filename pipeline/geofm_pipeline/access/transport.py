"""One read of one href, honestly: redirects, refused credentials and everything an answer can be.

A :class:`Transport` is shared by all of a process: its connections, credentials, signed addresses and pace. It sends
one request for a range whose signed address is known, two for one that is not. Credentials that a server refuses are
renewed once per read. Nothing that is not exactly what was asked for comes back as data.
"""

from __future__ import annotations

import gzip
import os
import re
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import quote, urljoin

from geofm_pipeline.access import pace
from geofm_pipeline.access.answers import code, come_again, licence_refusal, retry_after_s, said
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import HttpClient, Response
from geofm_pipeline.access.notices import NOTICES, QUIET_S
from geofm_pipeline.access.routes import Routes, Target, host_key
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.addresses import well_formed
from geofm_pipeline.progress import duration

Span = tuple[int, int]
"""(first byte, stop)."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is asked of an href, and for whom."""

    span: Span | None
    """None for the whole."""
    tally: Tally
    """Counts what it takes."""
    stop: threading.Event
    """Set when the work ends: then nothing is waited for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    document: bool = False
    """A service's document, which may come compressed; bytes of a file may not, since ranges count the file's own."""


AGENT = "geofm (https://github.com/geofm/geofm)"
_HEADERS = {
    False: {"User-Agent": AGENT, "Accept": "*/*"},
    True: {"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "gzip"},
}
"""Of a file and of a document."""
_ADDRESS = "%/:=&?~#+!$,;'@()*[]|"
"""Characters that stand for themselves in an address; a % begins what is quoted already."""
_HOPS = 5
_RENEWALS = 3  # of credentials or addresses within one read: one of each kind
_RANGE = re.compile(r"(?i:bytes) (\d+)-(\d+)/(\d+|\*)")


class Transport:
    """Reads hrefs over networks for one process; see the module."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._reached: set[str] = set()
        """Hosts that have answered, whatever they said."""
        self._here = threading.local()
        """The stop of the read that a thread is busy with, for the keepers of credentials."""
        self._client = HttpClient(access)
        self._pace = pace.of_this_process(access.requests_per_second)
        self.routes = Routes(access, self._plain)

    def fetch(self, href: str, ask: Ask) -> Response:
        """The 200 or 206 answer to one GET of an href; 416 where the span lies behind the end of the file.

        Raises
        ------
        FetchError
            With what is wrong; transient ones are not tried again here.
        """
        done: list[str] = []
        self._here.stop = ask.stop
        while True:
            try:
                target, response = self._followed(href, self.routes.target(href), ask)
            except ValueError:  # of urlsplit, whose message repeats the address
                raise FetchError(Fault.REFUSED, "the address is malformed") from None
            if response.status in (200, 206, 416):
                return _checked(response, ask, href)
            why = self._renewed(target, response, done) if len(done) < _RENEWALS else ""
            if not why:
                refusal = self._refusal(target, response)
                refusal.status = response.status
                raise refusal
            ask.tally.retried(why)
            done.append(why)

    def _followed(self, href: str, target: Target, ask: Ask) -> tuple[Target, Response]:
        """The first answer that is no redirect, and the request it answers; a signed address is kept."""
        for _ in range(_HOPS):
            response = self._send(target, ask)
            where = response.headers.get("location", "")
            if response.status not in (301, 302, 303, 307, 308) or not where:
                return target, response
            where = urljoin(target.url, quote(where, safe=_ADDRESS))  # some write blanks or letters as they are
            if self.routes.is_login(where):
                return target, response
            if not where.startswith(("https://", "http://")) or (target.url[:8] == "https://" != where[:8]):
                raise FetchError(Fault.REFUSED, "the server redirects to an address that is not https")
            if target.bearer:
                self.routes.redirects.put(href, where, response.headers)
            # Never a credential with a redirect: the address that it leads to carries its own.
            target = Target(url=where, signed_for=target.signed_for or (href if target.bearer else ""))
        raise FetchError(Fault.REFUSED, f"the server redirected {_HOPS} times without an answer")

    def _send(self, target: Target, ask: Ask) -> Response:
        tally = ask.tally
        if self._pace.wait(target.host, ask.stop) > 1.0:
            tally.note("waited for the rate limit")
        if ask.stop.is_set():
            raise FetchError(Fault.CONNECTION, "the read was given up because the run ends")
        began = time.monotonic()

        def stopped() -> bool:
            waited = time.monotonic() - began
            if waited >= QUIET_S:
                NOTICES.tell(target.host, f"its answer has been waited for since {duration(waited)}")
            return ask.stop.is_set()

        try:
            response = self._client.get(
                target.url,
                headers={**_HEADERS[ask.document], **ask.headers, **target.headers},
                span=ask.span,
                signature=target.signature,
                stopped=stopped,
            )
        except FetchError as error:
            tally.sent(0)
            error.unreached = target.host not in self._reached
            raise
        self._reached.add(target.host)
        tally.sent(len(response.body))
        if response.status in (429, 503):
            self._pace.slow_down(target.host, min(retry_after_s(response.headers) or 0.0, self.access.longest_wait_s))
        return response

    def _plain(self, url: str, headers: Mapping[str, str]) -> Response:
        """A request of the keepers of credentials: no redirect is followed, no credential added."""
        stop = getattr(self._here, "stop", None) or threading.Event()
        return self._send(Target(url=url), Ask(span=None, tally=Tally(), stop=stop, headers=headers))

    def _renewed(self, target: Target, response: Response, done: Sequence[str]) -> str:
        """Renew what the server refused; what was renewed, '' if nothing could be. `done` was renewed before."""
        if target.signed_for and response.status in (400, 401, 403):
            self.routes.redirects.drop(target.signed_for, target.url)
            return "address renewed"
        if target.bearer and (response.status == 401 or 300 <= response.status < 400):
            return "login renewed" if self.routes.earthdata.renew(target.bearer) else ""
        if target.blob and response.status in (401, 403, 409):
            self.routes.signatures.forget(target.blob)
            return "signature renewed"
        if target.keys is not None and response.status in (400, 401, 403):
            expired = code(response) in _EXPIRED_KEYS and "keys renewed" not in done
            if expired and self.routes.keys.renew(target.keys) is not None:
                return "keys renewed"
            return "https instead of s3" if self.routes.leave_s3() else ""
        return ""

    def _refusal(self, target: Target, response: Response) -> FetchError:
        """What an answer that is no data means."""
        status = response.status
        if status in (404, 410):
            return FetchError(Fault.MISSING, f"the server has no such file ({status})")
        later = come_again(response)
        if later is not None:
            return later
        licence = licence_refusal(response, self.access.services.earthdata_login)
        if licence is not None:
            return licence
        if target.bearer and (status == 401 or 300 <= status < 400):
            why = self.routes.earthdata.explain_refusal()
            return FetchError(Fault.EXPIRED, f"NASA Earthdata refused the login: {why}")
        if status in (401, 403, 409):
            return _forbidden(target, response)
        return FetchError(Fault.REFUSED, f"the server refused the request ({status}{said(response)})")


_EXPIRED_KEYS = ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired")
"""S3's codes for keys that new ones may replace."""


def _forbidden(target: Target, response: Response) -> FetchError:
    why = said(response)
    if code(response) == "RequestTimeTooSkewed":
        return FetchError(Fault.REFUSED, f"S3 refused the request{why}: this machine's clock is wrong, set it right")
    if target.keys is not None:
        return FetchError(
            Fault.REGION,
            f"S3 refused temporary keys ({response.status}{why}): they work on Amazon machines in the archive's region "
            "only; use --access auto or https elsewhere",
        )
    if response.status == 401:
        return FetchError(Fault.LOGIN, f"the server wants a login ({response.status}{why}): check account and token")
    return FetchError(
        Fault.LOGIN,
        f"the server refused access ({response.status}{why}): check the login and that its licence was accepted",
    )


def _checked(response: Response, ask: Ask, href: str) -> Response:
    """The answer if it is exactly what was asked for."""
    span = ask.span
    if response.status == 416:
        return _behind_the_end(response, span)
    if response.is_html:
        raise FetchError(
            Fault.HTML,
            "an HTML page instead of data: nearly always a failed login; check the account, its password or token, and "
            "that the data centre's licence was accepted (geofm-sample login-check says which)",
        )
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) != len(response.body) and not response.cut:
        raise FetchError(Fault.SHORT, f"the body ended after {len(response.body)} of {announced} bytes")
    encoding = response.headers.get("content-encoding", "").lower()
    if encoding == "gzip" and ask.document:
        return _unzipped(response)
    if encoding not in ("", "identity"):
        raise FetchError(Fault.REFUSED, "the server, or a proxy before it, sent compressed bytes that nobody asked for")
    if not announced and not ask.document and "transfer-encoding" not in response.headers:
        raise FetchError(Fault.REFUSED, "the server does not say how long its answer is, so a lost end would not show")
    if response.is_text and href.partition("?")[0].lower().endswith((".tif", ".tiff")) and not (span or (0, 0))[0]:
        raise FetchError(Fault.TEXT, f"a text instead of a TIFF: {response.excerpt()!r}")
    if span is None:
        if response.status == 206 and file_size(response) != len(response.body):
            raise FetchError(Fault.SHORT, "the server sent a part where the whole file was asked for")
        return response
    whole = response.status == 200 and span[0] == 0 and announced == str(len(response.body)) and not response.cut
    if whole and len(response.body) <= span[1]:
        return response  # of a file that is no longer than the range
    if response.headers.get("content-type", "").startswith("multipart/byteranges"):
        raise FetchError(Fault.NO_RANGES, "the server wraps a range in a multipart message instead of sending it")
    if response.status == 200:
        raise FetchError(Fault.NO_RANGES, "the server ignores range requests, so blocks cannot be read from it")
    found = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or int(found[1]) != span[0] or int(found[2]) + 1 - span[0] != len(response.body):
        raise FetchError(Fault.SHORT, "the server sent another range than it was asked for")
    stop = span[1] if found[3] == "*" else min(span[1], int(found[3]))
    if int(found[2]) + 1 != stop:
        raise FetchError(Fault.SHORT, f"the server sent {len(response.body)} of {stop - span[0]} bytes")
    return response


def _behind_the_end(response: Response, span: Span | None) -> Response:
    """A 416 is the end of the file only where the file does end before the range."""
    size = file_size(response)
    if span is None:
        raise FetchError(Fault.REFUSED, "the server refused a request for the whole file as a range (416)")
    if size is not None and size > span[0]:
        raise FetchError(Fault.SHORT, f"the server refused bytes from {span[0]} of a file that has {size} (416)")
    if size is None and span[0] == 0:
        raise FetchError(Fault.REFUSED, "the server refused the first bytes of the file (416)")
    if size is None and code(response) != "InvalidRange":  # S3 says it by its code alone
        raise FetchError(Fault.SHORT, f"the server refused bytes from {span[0]} without the size of the file (416)")
    return response


def _unzipped(response: Response) -> Response:
    try:
        return replace(response, body=gzip.decompress(response.body))
    except (OSError, EOFError, zlib.error):
        raise FetchError(Fault.SHORT, "the compressed body is damaged or ends early") from None


def file_size(response: Response) -> int | None:
    """Bytes of the whole file by a 206's or 416's Content-Range, None where it does not say."""
    total = response.headers.get("content-range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


@lru_cache(maxsize=8)
def _transport(process: int, key: str) -> Transport:
    return Transport(_ACCESSES[key])


_ACCESSES: dict[str, Access] = {}


def transport(access: Access) -> Transport:
    """The transport of this process for equal settings: connections, credentials and pace are shared."""
    key = repr(access)  # dictionaries in it have no hash
    _ACCESSES.setdefault(key, access)
    return _transport(os.getpid(), key)


def needs_earthdata(access: Access, href: str) -> bool:
    """Whether reading an href takes a NASA Earthdata account; of one that cannot be an address its read will tell."""
    if not well_formed(href):
        return False
    return host_key(href) in access.services.earthdata_hosts or any(
        href.startswith(f"s3://{name}/") and bucket.keys == "earthdata"
        for name, bucket in access.services.buckets.items()
    )
