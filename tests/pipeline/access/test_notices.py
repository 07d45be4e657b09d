"""Whoever waits is told what for: one line per host and half minute, without a path or a secret."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from servers.proxy import proxying

from geofm_pipeline.access import source as reading
from geofm_pipeline.access import transport
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.notices import EVERY_S, NOTICES, Notices, said_by
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource

if TYPE_CHECKING:
    from .conftest import Shelf


def test_one_line_per_host_and_half_minute() -> None:
    """The second line about a host comes when the first is half a minute old; other hosts have lines of their own."""
    now, heard = 0.0, list[tuple[str, str]]()
    notices = Notices(lambda: now)
    notices.listen(lambda host, words: heard.append((host, words)))
    for now, host in ((0.0, "a"), (1.0, "a"), (2.0, "b"), (EVERY_S - 0.1, "a"), (EVERY_S, "a")):
        notices.tell(host, str(now))
    assert heard == [("a", "0.0"), ("b", "2.0"), ("a", str(EVERY_S))]


def test_nobody_listening_is_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A library's user, and a worker without a driving process, finds the line in the log."""
    with caplog.at_level(logging.WARNING):
        Notices().tell("host.example", "waits")
    assert caplog.messages == ["network: host.example: waits"]


def test_a_long_wait_for_a_repeat_is_told(shelf: Shelf, hasty: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host, cause, tries and the wait; neither path nor query."""
    monkeypatch.setattr(reading, "QUIET_S", 0.9)
    monkeypatch.setattr(NOTICES, "_told", {})
    shelf.files["/secret"] = b"x" * 10
    shelf.faults["/secret"] = deque(["503 retry-after 1"])
    said = list[str]()
    with said_by(said.append):
        source = ArchiveSource(replace(hasty, longest_wait_s=1.0))
        assert source.read(f"{shelf.url}/secret?token=secret", 0, 10) == b"x" * 10
    assert len(said) == 1
    assert said[0].startswith(f"network: {shelf.url.removeprefix('http://')}: ")
    assert "503" in said[0]
    assert said[0].endswith("; 1 of 4 tries made, the next one in 1.0 s")
    assert "secret" not in said[0]


def test_a_silent_server_is_told_of(shelf: Shelf, hasty: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first answer is still waited for."""
    monkeypatch.setattr(transport, "QUIET_S", 0.5)
    monkeypatch.setattr(NOTICES, "_told", {})
    shelf.files["/f"] = b"x" * 10
    shelf.faults["/f"] = deque(["silent"])
    said = list[str]()
    with said_by(said.append):
        assert ArchiveSource(replace(hasty, timeout_s=20.0)).read(f"{shelf.url}/f", 0, 10) == b"x" * 10
    assert len(said) == 1
    assert "its answer has been waited for since" in said[0]


def test_short_waits_are_nobodys_business(shelf: Shelf, hasty: Access) -> None:
    """A server that stumbles once costs no line."""
    shelf.files["/f"] = b"x" * 10
    shelf.faults["/f"] = deque(["500", "reset"])
    said = list[str]()
    with said_by(said.append):
        ArchiveSource(hasty).read(f"{shelf.url}/f", 0, 10)
    assert said == []


def test_a_proxy_that_leads_nowhere_is_named(hasty: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's refusal is not taken for the host's."""
    with proxying({}) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(FetchError, match=r"HTTPS_PROXY names does not lead to this host \(502\)") as caught:
            ArchiveSource(hasty).read("https://nowhere.example/f", 0, 10)
    assert caught.value.fault is Fault.CONNECTION
    assert caught.value.transient
