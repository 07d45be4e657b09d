"""Runners: results, retries, and workers that die."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import pytest

from geofm_pipeline.cluster import InProcess, check_address, open_runner
from geofm_pipeline.errors import BlockReadError, ClusterError


def square(x: int) -> int:
    return x * x


def die_once(argument: tuple[int, str]) -> int:
    """Kill the worker the first time argument 3 comes."""
    x, marker = argument
    if x == 3 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def die_always(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def fail_twice(argument: tuple[int, str]) -> int:
    """A transient fault on the first two tries."""
    x, folder = argument
    tries = len(list(Path(folder).iterdir()))
    if tries < 2:
        (Path(folder) / str(tries)).touch()
        raise BlockReadError(granule="g", band="B04", cause="time-out", transient=True)
    return x


def test_in_process_results_come_in_order() -> None:
    """Without Dask, tasks run here, in order."""
    assert list(InProcess().run(square, [1, 2, 3])) == [(0, 1), (1, 4), (2, 9)]


def test_transient_faults_are_tried_again(tmp_path: Path) -> None:
    """Two transient faults are survived, a permanent one is not."""
    assert list(InProcess().run(fail_twice, [(5, str(tmp_path))])) == [(0, 5)]


def test_no_scheduler_is_a_cluster_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody listens is named, with the remedy."""
    monkeypatch.setattr("geofm_pipeline.cluster.CONNECT_SECONDS", 1)
    with (
        pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:9"),
        open_runner(workers=None, scheduler="tcp://127.0.0.1:9", scratch=tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    "address", ["nonsense", "", "scheduler.json", "tcp://host", "host:port", "http://host:8786", "://:8786"]
)
def test_what_is_no_address_is_refused_at_once(tmp_path: Path, address: str) -> None:
    """Without host and port, or with a foreign scheme, nothing is tried: the message shows the form."""
    with (
        pytest.raises(ClusterError, match=r"is no address of a Dask scheduler: give host:port"),
        open_runner(workers=None, scheduler=address, scratch=tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8786", "tcp://[::1]:8786", "tls://host.name:1", "ucx://10.0.0.1:2", "inproc://1/2"]
)
def test_addresses_of_dask_pass(address: str) -> None:
    """Every form that `dask scheduler` prints, and what people shorten it to."""
    check_address(address)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 9])
def test_a_server_that_is_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """One that says nothing, and one that speaks HTTP: a cluster error that names the address, within the time."""
    monkeypatch.setattr("geofm_pipeline.cluster.CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=_answer_all, args=(server, answer), daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match=address), open_runner(workers=None, scheduler=address, scratch=tmp_path):
            pass
        server.shutdown(socket.SHUT_RDWR)


def _answer_all(server: socket.socket, answer: bytes) -> None:
    """Take every connection, say one thing and keep it open until the server is shut down."""
    with ExitStack() as stack, suppress(OSError):
        while True:
            connection = stack.enter_context(server.accept()[0])
            connection.sendall(answer)


@pytest.mark.heavy
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """A worker killed by SIGKILL in the middle of a task: every result still comes, once."""
    marker = str(tmp_path / "marker")
    with open_runner(workers=2, scheduler=None, scratch=tmp_path) as runner:
        results = sorted(runner.run(die_once, [(x, marker) for x in range(12)]))
    assert results == [(x, x * x) for x in range(12)]


@pytest.mark.heavy
def test_only_the_guilty_task_is_condemned(tmp_path: Path) -> None:
    """A task that kills its worker even alone is named; the innocent ones beside it give their results."""
    results: list[tuple[int, int]] = []

    def collect(stream: Iterator[tuple[int, int]]) -> None:
        for result in stream:
            results.append(result)  # noqa: PERF402 - what came before the error counts

    with (
        open_runner(workers=2, scheduler=None, scratch=tmp_path) as runner,
        pytest.raises(ClusterError, match="killed their workers even when run alone"),
    ):
        collect(runner.run(die_always, list(range(8))))
    assert sorted(results) == [(x, x) for x in range(8) if x != 3]
