"""A preflight before hours of work: log in, read sixteen kilobytes of one file, say what is wrong in a sentence.

Costs two or three requests; two more for the login by user and password, and as many again for S3 where it is used.
"""

from __future__ import annotations

import dataclasses
import email.utils
import os
import time
from collections.abc import Callable
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from geofm_pipeline.access.credentials import Credentials, find_credentials, looks_like_token, token_expiry
from geofm_pipeline.access.faults import OF_THE_LOGIN, Fault, FetchError
from geofm_pipeline.access.http import HttpClient
from geofm_pipeline.access.local import is_local, local_path
from geofm_pipeline.access.region import in_region
from geofm_pipeline.access.settings import Access, Route
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.access.transport import AGENT, needs_earthdata, transport
from geofm_pipeline.addresses import shown, well_formed
from geofm_pipeline.errors import ArchiveError, GeofmError, InputError, LoginError
from geofm_pipeline.progress import duration

SIZE = 16_384
"""Bytes that are read: the header of an HLS file and some more."""
_ATTEMPTS = 3  # nobody wants to wait for minutes before a preflight tells what is wrong
_TIFF = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
_SCHEMES = ("http", "https", "s3", "gs")
_SKEW_S = 120.0
"""Clocks that differ by less do no harm."""
_REMEDIES = {
    Fault.MISSING: "the file is gone; name another one with --href",
    Fault.CONNECTION: "check this machine's network; a site's proxy belongs into HTTPS_PROXY, and compute nodes of "
    "many clusters have no way out at all",
    Fault.TIMEOUT: "check this machine's network, or try again later",
    Fault.SERVER: "try again later",
    Fault.THROTTLED: "try again later, and with fewer workers or a lower --requests-per-second",
}
_OF_CLOCKS = (Fault.EXPIRED, Fault.LOGIN, Fault.REGION, Fault.REFUSED)
"""Faults that a wrong clock may cause."""
_OF_PROXIES = (Fault.CONNECTION, Fault.TIMEOUT)
"""Faults that a proxy may cause."""


def check_login(
    access: Access, *, href: str | None, say: Callable[[str], None], clock: Callable[[], float] = time.time
) -> None:
    """Go through a read of a protected file step by step, saying each step's result in one line.

    Parameters
    ----------
    access : services and route of the runs to come
    href : the file to read; the services' probe by default
    say : takes the lines
    clock : seconds since 1970, compared with the server's

    Raises
    ------
    InputError
        When `href` is neither an address nor a file.
    LoginError
        With what is wrong with the account at the first step that failed, and what to do.
    ArchiveError
        As LoginError, of the archive or the way to it.
    """
    href = access.services.probe if href is None else href
    _check_href(href)
    check = _Check(access, href, say, clock)
    if check.protected:
        check.log_in()
    else:
        say(f"credentials: {shown(href)} needs no NASA Earthdata login, so only its read is checked")
    data = check.read("https")
    check.read_by_s3(data)
    say("ready: protected files can be read" if check.protected else "ready: this file can be read")


def _check_href(href: str) -> None:
    if well_formed(href):
        parts = urlsplit(href)
        if (parts.scheme.lower() in _SCHEMES and parts.netloc) or (is_local(href) and local_path(href).is_file()):
            return
    raise InputError(
        f"--href {shown(href)} is neither an address nor a file that is there: give the address of a protected file, "
        "https://HOST/… or s3://BUCKET/…, as the catalogue's items have it, or leave --href out"
    )


class _Check:
    """The steps; each says its result or raises an error."""

    def __init__(self, access: Access, href: str, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._access = dataclasses.replace(access, attempts=min(_ATTEMPTS, access.attempts))
        self._services, self._href, self._say, self._clock = access.services, href, say, clock
        self.protected = needs_earthdata(access, href)

    def log_in(self) -> None:
        """Find credentials and, for user and password, get a token for them."""
        login = self._services.earthdata_login
        try:
            found = find_credentials(login)
            self._refuse_strange_token(found)
            who = f"user {found.user!r} in " if found.user else "a token in "
            self._say(f"credentials: {who}{found.where}")
            token = transport(self._by("https")).routes.earthdata.token()
        except FetchError as error:
            raise self._failure(error.cause, error) from None
        until = token_expiry(token)
        day = f"valid until {until:%Y-%m-%d %H:%M} UTC" if until else "without a date of expiry"
        if found.kind == "token":
            self._say(f"login: the token is {day} by its own words; the next step shows whether it is accepted")
        else:
            self._say(f"login: {login} accepted user and password and gave a token, {day}")

    def _refuse_strange_token(self, found: Credentials) -> None:
        """Refuse at once what cannot be a token; the login service would only answer with its page."""
        if found.kind == "token" and not looks_like_token(os.environ.get("EARTHDATA_TOKEN", "")):
            raise LoginError(
                f"what {found.where} holds does not look like an Earthdata token (it should be a long text with two "
                f"dots); make one at {self._services.earthdata_login} (Generate Token) and copy it in one line"
            )

    def read(self, route: Route) -> bytes:
        """The first bytes of the file, checked to be a TIFF's."""
        source = ArchiveSource(self._by(route))
        try:
            data = source.read(self._href, 0, SIZE)
        except FetchError as error:
            words = f"{shown(self._href)} cannot be read{f' by {route}' if self.protected else ''}: {error.cause}"
            raise self._failure(words, error) from None
        if not data.startswith(_TIFF):
            raise ArchiveError(
                f"{shown(self._href)}: {len(data):,} bytes arrived, but they are not the beginning of a TIFF; what "
                "answers there is not the archive, or --href names another kind of file"
            )
        requests = f"{source.tally.requests} {'request' if source.tally.requests == 1 else 'requests'}"
        again = f", {source.tally.retry_count} of them repeated" if source.tally.retry_count else ""
        way = route if self.protected else "read"
        self._say(f"{way}: {len(data):,} bytes of a TIFF arrived by {requests}, redirects included{again}")
        return data

    def read_by_s3(self, expected: bytes) -> None:
        """The same bytes by S3, where runs would use it."""
        why = self._why_not_s3()
        if why:
            self._say(f"s3: not tried, {why}")
            return
        try:
            data = self.read("s3")
        except (LoginError, ArchiveError) as error:
            if self._access.route == "s3":
                raise
            self._say(f"s3: {error}; runs use https instead")
            return
        if data != expected:
            raise ArchiveError(
                f"{shown(self._href)}: S3 and https gave different bytes; use --access https and report it"
            )

    def _why_not_s3(self) -> str:
        prefixes = self._services.earthdata_s3.items()
        twin = next((t + self._href.removeprefix(p) for p, t in prefixes if self._href.startswith(p)), "")
        if not twin:
            return "this file has no second address there"
        if self._access.route == "https":
            return "--access https was asked for"
        region = next((b.region for name, b in self._services.buckets.items() if twin.startswith(f"s3://{name}/")), "")
        if self._access.route == "auto" and not in_region(self._services, os.environ, region):
            return f"this machine is not in Amazon's region {region}, where alone it works; runs use https"
        return ""

    def _by(self, route: Route) -> Access:
        return dataclasses.replace(self._access, route=route)

    def _failure(self, words: str, error: FetchError) -> GeofmError:
        """A matter of the account, or one of the archive or the way to it, with what to do."""
        good = "the login is good, but " if error.fault == Fault.MISSING and self.protected else ""
        proxy = self._proxy() if error.fault in _OF_PROXIES else ""
        clock = self._skew() if error.fault in _OF_CLOCKS else ""
        said = "; ".join(filter(None, [words, proxy, good + _REMEDIES.get(error.fault, ""), clock]))
        return LoginError(said) if error.fault in OF_THE_LOGIN else ArchiveError(said)

    def _proxy(self) -> str:
        """That a proxy may be what does not answer, '' where there is none; its address may hold a password."""
        parts = urlsplit(self._href)
        scheme = "http" if parts.scheme.lower() == "http" else "https"
        name = next((kind for kind in (scheme, "all") if getproxies_environment().get(kind)), "")
        if not name or proxy_bypass(parts.hostname or ""):
            return ""
        return f"the proxy that {name.upper()}_PROXY names may be what does not answer"

    def _skew(self) -> str:
        """How wrong this machine's clock is by the server's Date; '' where it is right or cannot be told."""
        parts = urlsplit(self._href)
        if parts.scheme not in ("http", "https"):
            return ""
        try:
            answer = HttpClient(self._access).get(
                f"{parts.scheme}://{parts.netloc}/", headers={"User-Agent": AGENT}, span=None
            )
            there = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (FetchError, KeyError, ValueError):
            return ""
        skew = self._clock() - there
        if abs(skew) < _SKEW_S:
            return ""
        return f"this machine's clock is {duration(abs(skew))} {'fast' if skew > 0 else 'slow'}: set it first"
