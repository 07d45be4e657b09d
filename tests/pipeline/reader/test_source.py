"""Promises of the byte sources."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from geofm_pipeline.cog.source import ArchiveSource, ByteSource, FetchError, HttpOptions, HttpSource, LocalSource

if TYPE_CHECKING:
    from tests.pipeline.reader.conftest import RangeServer

HASTY = HttpOptions(attempts=4, first_wait_s=0.01, longest_wait_s=0.02, timeout_s=0.3)


@pytest.fixture
def content(range_server: RangeServer) -> bytes:
    """A file `a b.bin` on the server."""
    data = os.urandom(5000)
    (range_server.root / "a b.bin").write_bytes(data)
    return data


@pytest.fixture(params=["path", "file url", "http"])
def href(request: pytest.FixtureRequest, range_server: RangeServer, content: bytes) -> str:
    """The same file by every scheme."""
    path = range_server.root / "a b.bin"
    return {"path": str(path), "file url": path.as_uri(), "http": f"{range_server.url}/a%20b.bin"}[request.param]


def test_ranges_and_whole_files(href: str, content: bytes) -> None:
    """A range is exactly its bytes, fewer only at the end of the file, none behind it."""
    source = ArchiveSource(HASTY)
    assert source.read(href, 10, 100) == content[10:110]
    assert source.read(href, 4990, 100) == content[4990:]
    assert source.read(href, 6000, 10) == b""
    assert source.read_all(href) == content
    assert source.retries == 0


def test_a_missing_file_is_permanent(href: str) -> None:
    """No file, no retry, whatever the scheme."""
    source = ArchiveSource(HASTY)
    for read in (lambda: source.read(href + "x", 0, 10), lambda: source.read_all(href + "x")):
        with pytest.raises(FetchError, match=r"does not exist|no such file") as caught:
            read()
        assert not caught.value.transient
    assert source.retries == 0


def test_an_unknown_scheme_is_named() -> None:
    """A location nobody can read is an error, not a path."""
    with pytest.raises(FetchError, match="ftp:// locations are not supported"):
        ArchiveSource().read("ftp://host/file.tif", 0, 1)


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    """Operating system errors become FetchErrors."""
    with pytest.raises(FetchError, match="cannot be read"):
        LocalSource().read(str(tmp_path), 0, 1)


@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "408", "reset", "short", "slow"])
def test_transient_faults_are_retried_and_counted(range_server: RangeServer, content: bytes, fault: str) -> None:
    """Two faults in a row cost two retries and change no byte."""
    range_server.faults["/a%20b.bin"] = deque([fault] * 2)
    source = HttpSource(HASTY)
    assert source.read(f"{range_server.url}/a%20b.bin", 100, 3000) == content[100:3100]
    assert source.retries == 2
    assert len(range_server.log) == 3


def test_transient_faults_that_last_are_raised_as_such(range_server: RangeServer, content: bytes) -> None:
    """After its attempts a source gives up and says that the same read may succeed later."""
    range_server.faults["/a%20b.bin"] = deque(["always 503"])
    source = HttpSource(HASTY)
    with pytest.raises(FetchError, match="the server answered 503") as caught:
        source.read(f"{range_server.url}/a%20b.bin", 0, 10)
    assert caught.value.transient
    assert (source.retries, len(range_server.log)) == (3, 4)


@pytest.mark.parametrize("port_is_open", [True, False])
def test_a_host_that_is_not_there_is_transient(range_server: RangeServer, port_is_open: bool) -> None:
    """A refused or dropped connection may work later; the message has no location."""
    url = range_server.url if port_is_open else "http://127.0.0.1:9"
    range_server.faults["/secret"] = deque(["always reset"])
    with pytest.raises(FetchError, match="connection failed") as caught:
        HttpSource(HASTY).read(f"{url}/secret", 0, 10)
    assert caught.value.transient
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("401", "refused access (401 Unauthorized)"),
        ("403", "refused access (403 Forbidden)"),
        ("404", "no such file (404)"),
        ("410", "refused the request (410 Gone)"),
        ("html", "an HTML page instead of a TIFF: nearly always a failed login"),
        ("html without type", "an HTML page instead of a TIFF: nearly always a failed login"),
        ("ignore range", "the server ignores range requests"),
    ],
)
def test_permanent_faults_are_not_retried(range_server: RangeServer, content: bytes, fault: str, cause: str) -> None:
    """The message says what the server did; nothing is asked for again in the hope of another answer."""
    range_server.faults["/a%20b.bin"] = deque([f"always {fault}"])
    source = HttpSource(HASTY)
    with pytest.raises(FetchError) as caught:
        source.read(f"{range_server.url}/a%20b.bin", 0, 10)
    assert cause in str(caught.value)
    assert (caught.value.transient, source.retries) == (False, 0)
    # A login says nothing about the file: it stops the run instead of becoming a recorded state.
    assert caught.value.stops_the_run == (fault not in {"404", "410"})


def test_an_html_page_is_no_whole_file(range_server: RangeServer, content: bytes) -> None:
    """A login page with status 200 is refused where no range was asked for, too."""
    range_server.faults["/a%20b.bin"] = deque(["html"])
    with pytest.raises(FetchError, match="an HTML page"):
        HttpSource(HASTY).read_all(f"{range_server.url}/a%20b.bin")


def test_a_query_is_sent_and_never_shown(range_server: RangeServer, content: bytes) -> None:
    """Signed locations keep their query; errors do not repeat it."""
    source = HttpSource(HASTY)
    href = f"{range_server.url}/a%20b.bin?sig=s3cret%2F%3D&x=1"
    assert source.read(href, 0, 10) == content[:10]
    assert range_server.log[-1][0] == "/a%20b.bin?sig=s3cret%2F%3D&x=1"
    for fault in ("404", "403", "410", "503", "reset", "html"):
        range_server.faults["/a%20b.bin"] = deque([f"always {fault}"])
        with pytest.raises(FetchError) as caught:
            source.read(href, 0, 10)
        assert "s3cret" not in repr(caught.value)
        assert caught.value.__cause__ is None


def test_threads_share_connections(range_server: RangeServer, content: bytes) -> None:
    """Many threads at once get the right bytes."""
    source = HttpSource(HASTY)
    href = f"{range_server.url}/a%20b.bin"
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: source.read(href, 50 * i, 50), range(100)))
    assert b"".join(parts) == content


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    """A thousand files need no thousand descriptors, and all are closed with the source."""
    for i in range(40):
        (tmp_path / str(i)).write_bytes(bytes([i]))
    before = open_descriptors()
    source = LocalSource(open_files=5)
    assert [source.read(str(tmp_path / str(i)), 0, 1) for i in range(40)] == [bytes([i]) for i in range(40)]
    assert open_descriptors() <= before + 5
    del source
    assert open_descriptors() == before


@pytest.mark.parametrize("make", [LocalSource, HttpSource, ArchiveSource])
def test_sources_travel_to_workers(make: Callable[[], ByteSource], tmp_path: Path) -> None:
    """A used source can be pickled; its connections stay behind. So can its errors."""
    (tmp_path / "f").write_bytes(b"abc")
    source = make()
    if make is not HttpSource:
        source.read(str(tmp_path / "f"), 0, 1)
    twin = pickle.loads(pickle.dumps(source))
    assert type(twin) is make
    error = pickle.loads(pickle.dumps(FetchError("why", transient=True)))
    assert (error.cause, error.transient) == ("why", True)
