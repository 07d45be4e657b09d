"""Byte sources: where the bytes of an href come from.

A source returns bytes or raises :class:`FetchError`, which says whether the same read may succeed later. It tries
transient faults again itself. Plain paths, file:// and http(s):// are served here by :class:`ArchiveSource`; a
further scheme is one more class with the same two methods.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import HTTPStore

from geofm_pipeline.cog.header import is_html

if TYPE_CHECKING:
    from obstore import GetResult

_STATUS = re.compile(r"status code: (\d{3}[^:\n]*)")
_URL = re.compile(r"\w+://\S+")
_LOGIN_PAGE = (
    "an HTML page instead of a TIFF: nearly always a failed login; check the account, its password or token, "
    "and that the data centre's licence was accepted"
)
_WAIT_CODES = ("408", "425", "429")
"""4xx codes that ask to come again later."""


class FetchError(Exception):
    """Bytes that cannot be had. The message never holds the href, whose query may carry a secret.

    Parameters
    ----------
    cause : what is wrong, in words a user understands
    transient : whether asking again at once may help
    about_file : whether the file itself is at fault; a failed login or a server without range requests is not, and must
        stop the run instead of condemning one file after the other
    """

    def __init__(self, cause: str, *, transient: bool = False, about_file: bool = True) -> None:
        super().__init__(cause)
        self.cause, self.transient, self.about_file = cause, transient, about_file

    @property
    def stops_the_run(self) -> bool:
        """Whether the read may succeed in a later run, so that nothing may be concluded from it."""
        return self.transient or not self.about_file

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_fetch_error, (self.cause, self.transient, self.about_file))


def _rebuild_fetch_error(cause: str, transient: bool, about_file: bool) -> FetchError:
    return FetchError(cause, transient=transient, about_file=about_file)


class ByteSource(Protocol):
    """Reads bytes by href, from any thread.

    Obligations: returns fewer bytes than asked for only at the end of the file; raises FetchError for everything else;
    retries transient faults before it raises them; is picklable, so that it can travel to workers.
    """

    @property
    def retries(self) -> int:
        """Requests repeated so far by this source."""
        ...

    def read(self, href: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start`."""
        ...

    def read_all(self, href: str) -> bytes:
        """The whole file by one request."""
        ...


class LocalSource:
    """Files by path or file:// URL, by positioned reads on at most `open_files` descriptors."""

    retries = 0

    def __init__(self, *, open_files: int = 256) -> None:
        self._limit, self._lock = open_files, threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()

    def read(self, href: str, start: int, length: int) -> bytes:
        """See :class:`ByteSource`."""
        return self._call(href, lambda file: os.pread(file.descriptor, length, start))

    def read_all(self, href: str) -> bytes:
        """See :class:`ByteSource`."""
        return self._call(href, lambda file: _pread_all(file.descriptor))

    def _call(self, href: str, read: Callable[[_File], bytes]) -> bytes:
        try:
            return read(self._file(href))
        except FileNotFoundError:
            raise FetchError("the file does not exist") from None
        except OSError as error:
            raise FetchError(f"the file cannot be read: {error.strerror}", about_file=False) from None

    def _file(self, href: str) -> _File:
        with self._lock:
            file = self._files.pop(href, None) or _File(local_path(href))
            self._files[href] = file
            if len(self._files) > self._limit:
                self._files.popitem(last=False)  # closes when the last reading thread lets go of it
            return file

    def __reduce__(self) -> tuple[object, ...]:
        return (_new_local_source, (self._limit,))


def _new_local_source(open_files: int) -> LocalSource:
    return LocalSource(open_files=open_files)


class _File:
    """An open descriptor, closed with the last reference."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _pread_all(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def local_path(href: str) -> Path:
    """Path of a plain path or file:// URL."""
    return Path(unquote(urlsplit(href).path)) if href.startswith("file://") else Path(href)


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """How patient an HttpSource is."""

    attempts: int = 6
    """Tries per request; the default waits between them sum to 15 s."""
    first_wait_s: float = 0.5
    """Mean of the first wait; each further one doubles it, jittered by half either way."""
    longest_wait_s: float = 30.0
    timeout_s: float = 60.0
    """Of one request, body included."""
    connect_timeout_s: float = 10.0


class HttpSource:
    """Range requests over http(s) through obstore: connections are kept and shared by all threads."""

    def __init__(self, options: HttpOptions | None = None) -> None:
        self.options = options or HttpOptions()
        self.retries = 0
        self._lock = threading.Lock()
        self._stores: OrderedDict[str, HTTPStore] = OrderedDict()

    def read(self, href: str, start: int, length: int) -> bytes:
        """See :class:`ByteSource`."""
        return self._patiently(lambda: self._get(href, (start, start + length)))

    def read_all(self, href: str) -> bytes:
        """See :class:`ByteSource`."""
        return self._patiently(lambda: self._get(href, None))

    def _patiently(self, get: Callable[[], bytes]) -> bytes:
        wait = self.options.first_wait_s
        for attempt in range(self.options.attempts):
            try:
                return get()
            except FetchError as error:
                if not error.transient or attempt + 1 == self.options.attempts:
                    raise
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, self.options.longest_wait_s)
            with self._lock:
                self.retries += 1
        raise AssertionError("unreachable: the last attempt raises")

    def _get(self, href: str, span: tuple[int, int] | None) -> bytes:
        store, path = self._locate(href)
        try:
            result = obstore.get(store, path, options={"range": span} if span else {})
            data = bytes(result.bytes())
        except NotSupportedError:
            raise FetchError(_refused_range(store, path), about_file=False) from None
        except (BaseError, FileNotFoundError, ValueError) as error:
            past_end = _status(error).startswith("416")
            if past_end:
                return b""
            raise _fetch_error(error) from None
        if _is_page(result) or ((span is None or span[0] == 0) and is_html(data)):
            raise FetchError(_LOGIN_PAGE, about_file=False)
        if len(data) != result.range[1] - result.range[0]:
            raise FetchError(f"the body ended after {len(data)} bytes", transient=True)
        return data

    def _locate(self, href: str) -> tuple[HTTPStore, str]:
        """Store of the href's host (and query, which signs whole containers) and the path in it."""
        parts = urlsplit(href)
        root = parts._replace(path="/", fragment="").geturl()
        with self._lock:
            store = self._stores.pop(root, None) or self._new_store(root)
            self._stores[root] = store
            if len(self._stores) > 64:
                self._stores.popitem(last=False)
        return store, unquote(parts.path).lstrip("/")

    def _new_store(self, root: str) -> HTTPStore:
        return HTTPStore.from_url(
            root,
            client_options={
                "allow_http": True,
                "timeout": timedelta(seconds=self.options.timeout_s),
                "connect_timeout": timedelta(seconds=self.options.connect_timeout_s),
            },
            retry_config={"max_retries": 0},  # retried here, where it is counted
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (HttpSource, (self.options,))


def _status(error: Exception) -> str:
    """Status line such as `503 Service Unavailable` of an obstore error, '' where the server gave none."""
    found = _STATUS.search(str(error))
    return found.group(1).strip() if found else ""


def _fetch_error(error: Exception) -> FetchError:
    """Class of a failed request. obstore has exceptions for 401, 403 and 404; the rest speaks by its status line."""
    status = _status(error)
    if isinstance(error, FileNotFoundError):
        return FetchError("the server has no such file (404)")
    if isinstance(error, UnauthenticatedError | PermissionDeniedError):
        cause = f"the server refused access ({status}): check the login and that its licence was accepted"
        return FetchError(cause, about_file=False)
    if status.startswith("4") and not status.startswith(_WAIT_CODES):
        return FetchError(f"the server refused the request ({status})")
    if status:
        return FetchError(f"the server answered {status}", transient=True)
    return FetchError(f"the connection failed: {_URL.sub('…', str(error).splitlines()[0])}", transient=True)


def _is_page(result: GetResult) -> bool:
    return str(result.attributes.get("Content-Type", "")).startswith("text/html")


def _refused_range(store: HTTPStore, path: str) -> str:
    """Why a server sent status 200 to a range request: mostly a login page."""
    try:
        result = obstore.get(store, path)
        page = _is_page(result) or is_html(bytes(next(iter(result.stream(min_chunk_size=64)), b"")))
    except (BaseError, FileNotFoundError, ValueError):
        page = False
    return _LOGIN_PAGE if page else "the server ignores range requests, so blocks cannot be read from it"


class ArchiveSource:
    """Whatever an archive's hrefs name: local files and http(s), by scheme.

    s3:// hrefs belong here as a third source with the same methods (obstore's S3Store).
    """

    def __init__(self, http: HttpOptions | None = None) -> None:
        self._local, self._http = LocalSource(), HttpSource(http)

    @property
    def retries(self) -> int:
        """See :class:`ByteSource`."""
        return self._http.retries

    def read(self, href: str, start: int, length: int) -> bytes:
        """See :class:`ByteSource`."""
        return self._resolve(href).read(href, start, length)

    def read_all(self, href: str) -> bytes:
        """See :class:`ByteSource`."""
        return self._resolve(href).read_all(href)

    def _resolve(self, href: str) -> ByteSource:
        scheme = href.partition("://")[0].lower() if "://" in href else "file"
        if scheme in ("http", "https"):
            return self._http
        if scheme == "file":
            return self._local
        raise FetchError(f"{scheme}:// locations are not supported: give https:// or local paths", about_file=False)

    def __reduce__(self) -> tuple[object, ...]:
        return (ArchiveSource, (self._http.options,))
