"""One request over HTTP(S), S3's signature included: the only pycurl user.

Nothing is tried again and no redirect followed here; the answer comes back as it is, with status and headers, and a
failed connection as a FetchError. Handles keep their connections and are lent to one thread at a time, so connections
outlive the threads. Proxies follow the usual variables (HTTPS_PROXY, NO_PROXY). Costs 60 to 110 µs per request.
"""

from __future__ import annotations

import codecs
import io
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import certifi
import pycurl

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.settings import Access

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where sites with a certificate authority of their own name its file; certifi's list otherwise."""
_PAGE_LIMIT = 1 << 20
"""Bytes that are read of an answer to a range request that is longer than it should be: an error page, perhaps."""
_BUFFER = 512 * 1024
_FAULTS = {
    pycurl.E_OPERATION_TIMEDOUT: Fault.TIMEOUT,
    pycurl.E_PARTIAL_FILE: Fault.SHORT,
    pycurl.E_URL_MALFORMAT: Fault.REFUSED,
    pycurl.E_PEER_FAILED_VERIFICATION: Fault.REFUSED,
    pycurl.E_SSL_CACERT_BADFILE: Fault.REFUSED,
}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What signs an S3 request."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    """'' for keys that are not temporary."""
    region: str


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer, whatever its status."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Lower-case names; may hold secrets."""
    body: bytes = field(repr=False)
    cut: bool = False
    """The body was longer than it may be and was not read to its end."""

    @property
    def is_html(self) -> bool:
        """Whether the answer says or looks that it is a web page."""
        kind = self.headers.get("content-type", "").lower()
        return kind.startswith(("text/html", "application/xhtml")) or self._begin.lower().startswith(_PAGES)

    @property
    def is_text(self) -> bool:
        """Whether the answer begins as a text for people does, which no raster, array or table does."""
        return len(self._begin) > 3 and all(byte in _PRINTED for byte in self._begin)

    @property
    def _begin(self) -> bytes:
        return self.body[:200].removeprefix(codecs.BOM_UTF8).lstrip()

    def excerpt(self) -> str:
        """The first words of a text."""
        return " ".join(self._begin.decode("ascii", errors="replace").split())[:80]


_PAGES = (b"<html", b"<!doctype", b"<?xml", b"<!--", b"<head", b"<body")
_PRINTED = frozenset(range(32, 127)) | {9, 10, 13}


class HttpClient:
    """Sends requests from any thread of the process that made it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        # Handles that sign are kept apart: libcurl lets the option be set, not unset.
        self._idle: dict[bool, list[pycurl.Curl]] = {True: [], False: []}
        self._lock, self._process = threading.Lock(), os.getpid()

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        span: tuple[int, int] | None,
        signature: Signature | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Response:
        """GET a URL.

        Parameters
        ----------
        span : (first byte, stop) of a range request; None for the whole
        signature : signs the request for S3
        stopped : asked about once a second and with each piece that arrives; True gives the request up

        Raises
        ------
        FetchError
            When no whole answer arrived: TIMEOUT, SHORT, CONNECTION, or REFUSED for an address or a certificate
            that cannot be right.
        """
        signs = signature is not None
        handle = self._borrow(signs)
        answer = _Answer()
        try:
            self._prepare(handle, url, headers, span, signature, answer)
            handle.setopt(pycurl.XFERINFOFUNCTION, lambda *_: stopped())
            handle.perform()
        except UnicodeError:
            handle.close()
            raise FetchError(Fault.REFUSED, "the address holds characters that no address may have") from None
        except pycurl.error as error:
            proxy = int(handle.getinfo(pycurl.HTTP_CONNECTCODE))
            handle.close()  # its connection is in doubt
            if proxy >= 400:
                raise _proxy_error(proxy) from None
            if error.args[0] == pycurl.E_FILESIZE_EXCEEDED:
                return answer.response(cut=True)
            raise _fetch_error(int(error.args[0]), answer) from None
        except BaseException:  # Ctrl-C in a callback
            handle.close()
            raise
        self._give_back(handle, signs)
        return answer.response()

    def _borrow(self, signs: bool) -> pycurl.Curl:
        with self._lock:
            if self._process != os.getpid():  # connections may not be shared with a parent process
                self._idle, self._process = {True: [], False: []}, os.getpid()
            if self._idle[signs]:
                return self._idle[signs].pop()
        handle = pycurl.Curl()
        access = self._access
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.FOLLOWLOCATION, 0)
        handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)  # no redirect leads to a local file
        handle.setopt(pycurl.NOPROGRESS, 0)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.BUFFERSIZE, _BUFFER)
        handle.setopt(pycurl.TCP_KEEPALIVE, 1)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, round(1000 * access.connect_timeout_s))
        handle.setopt(pycurl.TIMEOUT_MS, round(1000 * access.timeout_s))
        handle.setopt(pycurl.LOW_SPEED_LIMIT, 1000)
        handle.setopt(pycurl.CAINFO, _authorities())
        return handle

    def _give_back(self, handle: pycurl.Curl, signs: bool) -> None:
        with self._lock:
            if len(self._idle[signs]) < 4 * self._access.in_flight:
                self._idle[signs].append(handle)
                return
        handle.close()

    def _prepare(
        self,
        handle: pycurl.Curl,
        url: str,
        headers: Mapping[str, str],
        span: tuple[int, int] | None,
        signature: Signature | None,
        answer: _Answer,
    ) -> None:
        handle.setopt(pycurl.URL, url)
        # A file's bytes come at once or not at all; a service may think for minutes before its first byte.
        quiet_s = self._access.stall_s if span is not None else self._access.timeout_s
        handle.setopt(pycurl.LOW_SPEED_TIME, max(1, round(quiet_s)))
        lines = [f"{name}: {value}" for name, value in headers.items()]
        if span is None:
            handle.unsetopt(pycurl.RANGE)
            handle.setopt(pycurl.MAXFILESIZE_LARGE, 0)
        else:
            handle.setopt(pycurl.RANGE, f"{span[0]}-{span[1] - 1}")
            handle.setopt(pycurl.MAXFILESIZE_LARGE, max(span[1] - span[0], _PAGE_LIMIT))
        if signature is not None:
            handle.setopt(pycurl.AWS_SIGV4, f"aws:amz:{signature.region}:s3")
            handle.setopt(pycurl.USERPWD, f"{signature.access_key}:{signature.secret_key}")
            if signature.session_token:
                lines.append(f"x-amz-security-token: {signature.session_token}")
        handle.setopt(pycurl.HTTPHEADER, lines)
        handle.setopt(pycurl.HEADERFUNCTION, answer.lines.append)
        handle.setopt(pycurl.WRITEFUNCTION, answer.body.write)


class _Answer:
    """Collects one answer as it arrives."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.body = io.BytesIO()

    def response(self, *, cut: bool = False) -> Response:
        # The head of the final answer: 100 Continue may come before.
        last = len(self.lines) - 1
        first = next((i for i in range(last, 0, -1) if self.lines[i].startswith(b"HTTP/")), 0)
        head = b"".join(self.lines[first:]).decode("latin-1").split("\r\n")
        words = head[0].split(None, 2)
        headers = {}
        for line in head[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.lower()] = value.strip()
        return Response(status=int(words[1]), headers=headers, body=self.body.getvalue(), cut=cut)


def _fetch_error(code: int, answer: _Answer) -> FetchError:
    fault = _FAULTS.get(code, Fault.CONNECTION)
    if fault == Fault.TIMEOUT:
        return FetchError(fault, f"the server was silent or too slow ({answer.body.tell()} bytes arrived in time)")
    if fault == Fault.SHORT:
        return FetchError(fault, f"the body ended after {answer.body.tell()} bytes, before its announced end")
    if code in (pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE):
        remedy = "where a proxy has an authority of its own, name its file in SSL_CERT_FILE"
        return FetchError(fault, f"the server's certificate cannot be trusted; {remedy}")
    if code == pycurl.E_ABORTED_BY_CALLBACK:
        return FetchError(Fault.CONNECTION, "the read was given up because the run ends")
    if fault == Fault.REFUSED:
        return FetchError(fault, "the address is malformed or of an unknown kind")
    return FetchError(Fault.CONNECTION, f"the connection failed ({_KINDS.get(code, f'libcurl code {code}')})")


def _proxy_error(status: int) -> FetchError:
    fault = Fault.CONNECTION if status >= 500 else Fault.REFUSED
    if status == 407:
        return FetchError(fault, "the proxy that HTTPS_PROXY names wants a password (407)")
    return FetchError(fault, f"the proxy that HTTPS_PROXY names does not lead to this host ({status})")


_KINDS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the host's name is unknown",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the proxy's name is unknown",
    pycurl.E_COULDNT_CONNECT: "nobody listens there, or a firewall is between",
    pycurl.E_GOT_NOTHING: "the server closed it without an answer",
    pycurl.E_RECV_ERROR: "it was reset while receiving",
    pycurl.E_SEND_ERROR: "it was reset while sending",
    pycurl.E_SSL_CONNECT_ERROR: "TLS could not be agreed on",
    pycurl.E_UNSUPPORTED_PROTOCOL: "what answered was no HTTP",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "what answered was no proper HTTP",
    100: "the answer's header is too large",  # CURLE_TOO_LARGE, which pycurl does not name
}
"""libcurl's own messages may name hosts and addresses; these do not."""


def _authorities() -> str:
    """File of the trusted certificate authorities."""
    named = (os.environ.get(name, "") for name in _CA_VARIABLES)
    return next((path for path in named if path and Path(path).is_file()), certifi.where())
