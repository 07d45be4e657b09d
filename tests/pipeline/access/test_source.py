"""Promises of the byte source: exact bytes or a named fault, whatever the scheme and whatever the server does."""

from __future__ import annotations

import gzip
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers.loopback import Reply

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.local import LocalFiles
from geofm_pipeline.access.remote_file import RemoteFile
from geofm_pipeline.access.routes import host_key
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource

if TYPE_CHECKING:
    from .conftest import Shelf

CONTENT = os.urandom(5000)


@pytest.fixture(params=["path", "file url", "http"])
def href(request: pytest.FixtureRequest, shelf: Shelf, tmp_path: Path) -> str:
    """The same file by every scheme that needs no keys."""
    path = tmp_path / "a b.bin"
    path.write_bytes(CONTENT)
    shelf.files["/a b.bin"] = CONTENT
    return {"path": str(path), "file url": path.as_uri(), "http": f"{shelf.url}/a%20b.bin"}[request.param]


@pytest.fixture
def url(shelf: Shelf) -> str:
    """The file on the server."""
    shelf.files["/f.bin"] = CONTENT
    return f"{shelf.url}/f.bin"


def test_ranges_and_whole_files(href: str, hasty: Access) -> None:
    """A range is exactly its bytes, fewer only at the end of the file, none behind it; the size is the size."""
    source = ArchiveSource(hasty)
    assert source.read(href, 10, 100) == CONTENT[10:110]
    assert source.read(href, 4990, 100) == CONTENT[4990:]
    assert source.read(href, 6000, 10) == b""
    assert source.read(href, 10, 0) == b""
    assert source.read_all(href) == CONTENT
    assert source.size(href) == len(CONTENT)
    assert source.tally.retry_count == 0


def test_a_missing_file_is_permanent_and_says_something_of_the_file(href: str, hasty: Access) -> None:
    """No file, no retry, whatever the scheme; it may become a recorded state."""
    source = ArchiveSource(hasty)
    for read in (lambda: source.read(href + "x", 0, 10), lambda: source.read_all(href + "x")):
        with pytest.raises(FetchError, match=r"does not exist|no such file") as caught:
            read()
        assert (caught.value.fault, caught.value.transient, caught.value.stops_the_run) == (Fault.MISSING, False, False)
    assert source.tally.retry_count == 0
    assert source.tally.failures == {Fault.MISSING: 2}


def test_an_unknown_scheme_is_named() -> None:
    """A location nobody can read is an error, not a path."""
    with pytest.raises(FetchError, match="ftp:// locations are not supported") as caught:
        ArchiveSource().read("ftp://host/file.tif", 0, 1)
    assert caught.value.stops_the_run


def test_a_folder_is_an_error_of_the_machine(tmp_path: Path) -> None:
    """Operating system errors become FetchErrors that condemn no file."""
    with pytest.raises(FetchError, match="cannot be read") as caught:
        LocalFiles().read(str(tmp_path), 0, 1)
    assert caught.value.stops_the_run


def test_file_systems_may_give_less_than_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read(2) that stops short is continued; only the end of the file ends a read."""
    (tmp_path / "f").write_bytes(CONTENT)
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, start: whole(descriptor, min(length, 700), start))
    files = LocalFiles()
    assert files.read_all(str(tmp_path / "f")) == CONTENT
    assert files.read(str(tmp_path / "f"), 100, 3000) == CONTENT[100:3100]
    assert files.read(str(tmp_path / "f"), 4000, 3000) == CONTENT[4000:]


TRANSIENT = {
    "500": Fault.SERVER,
    "502": Fault.SERVER,
    "503": Fault.SERVER,
    "504": Fault.SERVER,
    "429": Fault.THROTTLED,
    "408": Fault.TIMEOUT,
    "reset": Fault.CONNECTION,
    "short": Fault.SHORT,
    "less": Fault.SHORT,
    "other-range": Fault.SHORT,
    "silent": Fault.TIMEOUT,
    "stall": Fault.TIMEOUT,
    "no-http": Fault.CONNECTION,
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_faults_are_retried_and_counted_by_cause(shelf: Shelf, url: str, hasty: Access, fault: str) -> None:
    """Two faults in a row cost two retries, which are counted under their cause, and change no byte."""
    shelf.faults["/f.bin"] = deque([fault] * 2)
    source = ArchiveSource(hasty)
    assert source.read(url, 100, 3000) == CONTENT[100:3100]
    assert source.tally.retries == {TRANSIENT[fault]: 2}
    assert (source.tally.requests, len(shelf.log)) == (3, 3)
    assert not source.tally.failures


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_faults_that_last_are_raised_as_such(shelf: Shelf, url: str, hasty: Access, fault: str) -> None:
    """After its attempts a source gives up, says that the same read may succeed later, and counts one failure."""
    shelf.faults["/f.bin"] = deque([f"always {fault}"])
    source = ArchiveSource(hasty)
    with pytest.raises(FetchError) as caught:
        source.read(url, 100, 3000)
    assert (caught.value.fault, caught.value.transient) == (TRANSIENT[fault], True)
    assert caught.value.stops_the_run
    assert (source.tally.retry_count, len(shelf.log)) == (3, 4)
    assert source.tally.failures == {TRANSIENT[fault]: 1}


@pytest.mark.parametrize("fault", ["short", "500", "reset", "html"])
def test_whole_files_are_checked_too(shelf: Shelf, url: str, hasty: Access, fault: str) -> None:
    """A whole-file read never ends early in silence and is no web page."""
    shelf.faults["/f.bin"] = deque([fault])
    source = ArchiveSource(hasty)
    if fault == "html":
        with pytest.raises(FetchError, match="an HTML page"):
            source.read_all(url)
    else:
        assert source.read_all(url) == CONTENT
        assert source.tally.retry_count == 1


@pytest.mark.parametrize("asked", ["429 retry-after 1", "503 retry-after 1", "429 retry-at 2"])
def test_retry_after_is_honoured(shelf: Shelf, url: str, asked: str) -> None:
    """A server that asks for a second, by number or by date, is left alone for a second by all threads."""
    patient = Access(attempts=3, first_wait_s=0.01, longest_wait_s=5, requests_per_second=1e4)
    shelf.faults["/f.bin"] = deque([asked])
    shelf.files["/other.bin"] = CONTENT
    source, started = ArchiveSource(patient), time.monotonic()
    first = threading.Thread(target=lambda: source.read(url, 0, 10))
    first.start()
    while not source.tally.retry_count:
        time.sleep(0.001)
    assert source.read(f"{shelf.url}/other.bin", 0, 10) == CONTENT[:10]  # another file of the same host waits, too
    waited = time.monotonic() - started
    first.join()
    assert waited > 0.8
    assert source.tally.retry_count == 1


@pytest.mark.parametrize("port_is_open", [True, False])
def test_a_host_that_is_not_there_is_transient(shelf: Shelf, hasty: Access, port_is_open: bool) -> None:
    """A refused or dropped connection may work later; the message has no location."""
    url = shelf.url if port_is_open else "http://127.0.0.1:9"
    shelf.faults["/secret"] = deque(["always reset"])
    with pytest.raises(FetchError, match="connection failed") as caught:
        ArchiveSource(hasty).read(f"{url}/secret", 0, 10)
    assert caught.value.transient
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "kind", "cause"),
    [
        ("401", Fault.LOGIN, "wants a login (401)"),
        ("403", Fault.LOGIN, "refused access (403)"),
        ("404", Fault.MISSING, "no such file (404)"),
        ("410", Fault.MISSING, "no such file (410)"),
        ("400", Fault.REFUSED, "refused the request (400)"),
        ("html", Fault.HTML, "an HTML page instead of data: nearly always a failed login"),
        ("html-as-data", Fault.HTML, "an HTML page instead of data: nearly always a failed login"),
        ("ignore-range", Fault.NO_RANGES, "the server ignores range requests"),
        ("multipart", Fault.NO_RANGES, "wraps a range in a multipart message"),
        ("gzip", Fault.REFUSED, "sent compressed bytes that nobody asked for"),
        ("xml-page", Fault.HTML, "an HTML page instead of data"),
        ("comment-page", Fault.HTML, "an HTML page instead of data"),
    ],
)
def test_permanent_faults_are_not_retried(
    shelf: Shelf, url: str, hasty: Access, fault: str, kind: Fault, cause: str
) -> None:
    """The message says what the server did; nothing is asked for again in the hope of another answer."""
    shelf.faults["/f.bin"] = deque([f"always {fault}"])
    source = ArchiveSource(hasty)
    with pytest.raises(FetchError) as caught:
        source.read(url, 0, 10)
    assert cause in str(caught.value)
    assert (caught.value.fault, caught.value.transient, source.tally.retry_count) == (kind, False, 0)
    # A login says nothing about the file: it stops the run instead of becoming a recorded state.
    assert caught.value.stops_the_run == (kind is not Fault.MISSING)


@pytest.mark.parametrize("span", [None, (0, 50)])
def test_a_text_instead_of_a_raster_is_no_file(shelf: Shelf, hasty: Access, span: tuple[int, int] | None) -> None:
    """A notice with status 200 condemns no file, whatever it calls itself: it is waited for, and then stops the run. A
    text where text may be, and a raster whose first bytes are asked for, are what they are."""
    notice, tiff = b"Service temporarily unavailable, try again in a few minutes.", b"II*\0" + bytes(60)
    shelf.files |= {"/a.tif": notice, "/b.TIFF": tiff, "/c.json": b'{"zarr_format": 2, "shape": [1, 2, 3, 4]}'}

    def read(name: str) -> bytes:
        href = f"{shelf.url}/{name}?sig=x.tif"
        return source.read_all(href) if span is None else source.read(href, *span)

    source = ArchiveSource(hasty)
    with pytest.raises(FetchError, match="a text instead of a TIFF: 'Service temporarily") as caught:
        read("a.tif")
    assert (caught.value.fault, caught.value.transient, caught.value.stops_the_run) == (Fault.TEXT, True, True)
    assert read("b.TIFF") == tiff[: None if span is None else 50]
    assert read("c.json") == shelf.files["/c.json"]


def test_an_answer_whose_end_would_not_show_is_refused(shelf: Shelf, url: str, hasty: Access) -> None:
    """Neither a length nor chunks: a cut body could not be told from a whole one."""
    shelf.faults["/f.bin"] = deque(["always endless"])
    with pytest.raises(FetchError, match="does not say how long its answer is"):
        ArchiveSource(hasty).read_all(url)


def test_a_refusal_without_a_size_is_no_end_of_a_file(shelf: Shelf, url: str, hasty: Access) -> None:
    """416 in the middle of a file, without the header that says its size, is a server that stumbles."""
    shelf.faults["/f.bin"] = deque(["416"])
    source = ArchiveSource(hasty)
    assert source.read(url, 100, 50) == CONTENT[100:150]
    assert source.tally.retries == {Fault.SHORT: 1}


def test_a_server_that_ignores_ranges_is_not_read_to_the_end(shelf: Shelf, hasty: Access) -> None:
    """Twenty megabytes that nobody asked for are cut off."""
    shelf.files["/big"] = bytes(20_000_000)
    shelf.faults["/big"] = deque(["always ignore-range"])
    source = ArchiveSource(hasty)
    with pytest.raises(FetchError, match="ignores range requests"):
        source.read(f"{shelf.url}/big", 0, 10)
    assert source.tally.bytes_received <= 1 << 20


def test_a_query_is_sent_and_never_shown(shelf: Shelf, hasty: Access) -> None:
    """Signed locations keep their query; errors do not repeat it."""
    shelf.files["/a b.bin"] = CONTENT
    source = ArchiveSource(hasty)
    href = f"{shelf.url}/a%20b.bin?sig=s3cret%2F%3D&x=1"
    assert source.read(href, 0, 10) == CONTENT[:10]
    assert shelf.log[-1].query == {"sig": "s3cret/=", "x": "1"}
    for fault in ("404", "403", "410", "503", "reset", "html"):
        shelf.faults["/a b.bin"] = deque([f"always {fault}"])
        with pytest.raises(FetchError) as caught:
            source.read(href, 0, 10)
        assert "s3cret" not in f"{caught.value!r} {caught.value}"


def test_redirects_are_followed_without_credentials(shelf: Shelf, hasty: Access) -> None:
    """A mirror may redirect; a circle of redirects is an error, not for ever."""
    shelf.files["/there"] = CONTENT
    inner = shelf.__call__

    def app(request):  # type: ignore[no-untyped-def]
        where = {"/here": "/there", "/round": "/round"}.get(request.path)
        reply = inner(request)
        return reply.__class__(status=302, headers={"Location": where}) if where else reply

    shelf.server.app = app  # type: ignore[union-attr]
    assert ArchiveSource(hasty).read(f"{shelf.url}/here", 5, 5) == CONTENT[5:10]
    with pytest.raises(FetchError, match="redirected"):
        ArchiveSource(hasty).read(f"{shelf.url}/round", 5, 5)


def test_connections_are_kept_and_shared(shelf: Shelf, url: str) -> None:
    """Five hundred reads by pools of eight threads that come and go cost few connections."""
    source = ArchiveSource(Access(requests_per_second=1e5))
    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda i: source.read(url, i, 7) == CONTENT[i : i + 7], range(100))) == {True}
    assert shelf.server is not None
    assert shelf.server.connections <= 16


def test_many_threads_share_few_descriptors(tmp_path: Path) -> None:
    """More files than descriptors, from many threads: every read is right."""
    files = []
    for i in range(40):
        path = tmp_path / str(i)
        path.write_bytes(bytes([i]) * 100)
        files.append(str(path))
    local = LocalFiles(open_files=5)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: local.read(files[n % 40], 10, 5), range(2000)))
    assert all(data == bytes([n % 40]) * 5 for n, data in enumerate(found))


@pytest.mark.parametrize("make", [ArchiveSource, lambda: ArchiveSource(Access(in_flight=7))])
def test_sources_travel_to_workers(make: Callable[[], ArchiveSource], tmp_path: Path) -> None:
    """A used source can be pickled; its connections and counts stay behind. So can its errors and tallies."""
    (tmp_path / "f").write_bytes(b"abc")
    source = make()
    source.read(str(tmp_path / "f"), 0, 1)
    twin = pickle.loads(pickle.dumps(source))
    assert twin.access == source.access
    assert twin.tally.requests == 0
    error = pickle.loads(pickle.dumps(FetchError(Fault.SERVER, "why", retry_after_s=3)))
    assert (error.cause, error.transient, error.retry_after_s) == ("why", True, 3)
    source.tally.retried(Fault.SHORT)
    assert pickle.loads(pickle.dumps(source.tally)).retries == {Fault.SHORT: 1}


@pytest.mark.parametrize("least", [0, 1000])
def test_a_remote_file_reads_like_a_local_one(shelf: Shelf, url: str, hasty: Access, least: int) -> None:
    """Seeks, tells and reads as a file does; small reads in a row may share a request."""
    file = RemoteFile(ArchiveSource(hasty), url, least=least)
    assert file.seek(-8, os.SEEK_END) == len(CONTENT) - 8
    assert (file.read(), file.read(5)) == (CONTENT[-8:], b"")
    file.seek(100)
    assert [file.read(10) for _ in range(5)] == [CONTENT[100 + 10 * i : 110 + 10 * i] for i in range(5)]
    assert file.tell() == 150
    buffer = bytearray(20)
    assert (file.readinto(memoryview(buffer)), bytes(buffer)) == (20, CONTENT[150:170])
    assert len(shelf.log) <= (4 if least else 9)


def _serve(shelf: Shelf, reply: Reply) -> None:
    assert shelf.server is not None
    shelf.server.app = lambda request: reply


def test_no_redirect_leads_to_a_local_file(shelf: Shelf, tmp_path: Path, hasty: Access) -> None:
    """A server cannot make this machine read its own files or other protocols for it."""
    (tmp_path / "f").write_bytes(bytes(200))
    for where in (f"file://{tmp_path}/f", "dict://127.0.0.1:9/x", "ftp://127.0.0.1/x"):
        _serve(shelf, Reply(status=302, headers={"Location": where}))
        with pytest.raises(FetchError, match="redirects to an address that is not https"):
            ArchiveSource(hasty).read_all(f"{shelf.url}/f")


@pytest.mark.parametrize(
    ("where", "start", "kind"),
    [("bytes */1000000", 500, Fault.SHORT), ("bytes */1000000", None, Fault.REFUSED), ("", 0, Fault.REFUSED)],
)
def test_a_416_is_the_end_only_where_the_file_ends(
    shelf: Shelf, hasty: Access, where: str, start: int | None, kind: Fault
) -> None:
    """Refused bytes inside a file are a fault, and the words of a refusal are never the file."""
    headers = {"Content-Range": where} if where else {}
    _serve(shelf, Reply(status=416, body=b"<Error><Code>InvalidRange</Code></Error>", headers=headers))
    source = ArchiveSource(hasty)
    with pytest.raises(FetchError) as caught:
        _ = source.read_all(f"{shelf.url}/f") if start is None else source.read(f"{shelf.url}/f", start, 100)
    assert caught.value.fault is kind


def test_a_whole_file_that_fits_the_range_is_taken(shelf: Shelf, hasty: Access) -> None:
    """A server may answer a range that holds the whole of a small file with 200 (RFC 9110)."""
    _serve(shelf, Reply(body=b"small"))
    assert ArchiveSource(hasty).read(f"{shelf.url}/f", 0, 100) == b"small"
    with pytest.raises(FetchError, match="ignores range requests"):
        ArchiveSource(hasty).read(f"{shelf.url}/f", 2, 100)


def test_compressed_bytes_that_nobody_asked_for_are_refused(shelf: Shelf, hasty: Access) -> None:
    """Neither undone nor taken for the file's own; of a service's document the compression is undone."""
    _serve(shelf, Reply(body=gzip.compress(b"x1y2"), headers={"Content-Encoding": "gzip"}))
    source = ArchiveSource(hasty)
    with pytest.raises(FetchError, match="compressed bytes"):
        source.read_all(f"{shelf.url}/f")
    assert source.get(f"{shelf.url}/f").body == b"x1y2"
    _serve(shelf, Reply(body=gzip.compress(b"x1y2")[:-3], headers={"Content-Encoding": "gzip"}))
    with pytest.raises(FetchError, match="damaged or ends early"):
        source.get(f"{shelf.url}/f")


@pytest.mark.parametrize("href", ["http://[::1/x", "http://127.0.0.1:1/é", "http://127.0.0.1:port/x"])
def test_a_malformed_address_is_a_fault_with_a_name(hasty: Access, href: str) -> None:
    """Whatever a catalogue holds, the error is a FetchError and does not repeat the address."""
    with pytest.raises(FetchError) as caught:
        ArchiveSource(hasty).read(href, 0, 10)
    assert caught.value.fault is Fault.REFUSED
    assert href not in str(caught.value)


@pytest.mark.parametrize(
    "href", ["http://data.lpdaac.earthdatacloud.nasa.gov/x", "http://data.earthdatahub.destine.eu/x"]
)
def test_no_token_goes_over_plain_http(hasty: Access, monkeypatch: pytest.MonkeyPatch, href: str) -> None:
    """Refused before anything is sent, whatever the catalogue says."""
    monkeypatch.setenv("EARTHDATA_TOKEN", "t0p-s3cret")
    monkeypatch.setenv("EARTHDATAHUB_TOKEN", "t0p-s3cret")
    source = ArchiveSource(hasty)
    with pytest.raises(FetchError, match="never sent over plain http"):
        source.read(href, 0, 10)
    assert source.tally.requests == 0


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://Data.LPDAAC.example:443/x", "data.lpdaac.example"),
        ("https://me:pw@data.lpdaac.example/x", "data.lpdaac.example"),
        ("http://h:80/x", "h"),
        ("http://h:8080/x", "h:8080"),
    ],
)
def test_hosts_are_compared_by_name(url: str, key: str) -> None:
    """Case, the scheme's own port and a user do not make another host; a user's password names none."""
    assert host_key(url) == key
