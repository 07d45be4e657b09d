"""Where tasks run: inside this process, on a local Dask cluster, or on any Dask scheduler. The only Dask-cluster user.

Tasks are coarse (a batch of granules, a write group), take small picklable arguments and return summaries. At most
two tasks per worker thread are submitted ahead. A task must be idempotent: a lost worker means it runs again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from geofm_pipeline.access.settings import Reading
from geofm_pipeline.card import versions
from geofm_pipeline.errors import BlockReadError, ClusterError
from geofm_pipeline.interrupts import beside, held, without_ctrl_c

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster, as_completed

A = TypeVar("A")
R = TypeVar("R")

_SCHEMES = frozenset({"tcp", "tls", "ucx", "ws", "wss"})
"""Of Dask's addresses with a host and a port."""

TRANSIENT_RETRIES = 2
"""How often a task is submitted again after a fault that may pass; the reader has retried each request before."""
CONNECT_SECONDS = 8
"""For a scheduler to answer: somebody waits at the terminal, and a wrong address never answers."""
WORKERS_SECONDS = 20
"""For its first worker to be there."""
CLOSE_SECONDS = 30
"""For a cluster to cancel tasks, and to end; after that its processes are killed."""
POLL_SECONDS = 0.01
"""Between two looks for finished tasks; these take seconds."""


class Runner(Protocol):
    """Runs one function over many arguments."""

    @property
    def workers(self) -> int:
        """Worker threads that run tasks; 1 inside this process."""
        ...

    @property
    def dashboard(self) -> str | None:
        """URL of the Dask dashboard, if there is one."""
        ...

    def run(self, task: Callable[[A], R], arguments: Sequence[A]) -> Iterator[tuple[int, R]]:
        """Yield (position of the argument, result) as tasks finish.

        Raises
        ------
        GeofmError
            What a task raised; ClusterError when workers die on it or the scheduler is lost.
        """
        ...


class InProcess:
    """A Runner without Dask: one task after the other, in order."""

    workers = 1
    dashboard: str | None = None

    def run(self, task: Callable[[A], R], arguments: Sequence[A]) -> Iterator[tuple[int, R]]:
        """Yield (position, result) in order."""
        for position, argument in enumerate(arguments):
            yield position, _patiently(task, argument)


def _patiently(task: Callable[[A], R], argument: A) -> R:
    """Call a task, again after a transient fault."""
    for _ in range(TRANSIENT_RETRIES):
        try:
            return task(argument)
        except BlockReadError as error:
            if not error.worth_repeating:
                raise
    return task(argument)


@contextlib.contextmanager
def open_runner(
    *, workers: int | None, scheduler: str | None, scratch: Path, reading: Reading | None = None
) -> Iterator[Runner]:
    """The Runner that the options ask for; a local cluster is closed at the end, a foreign scheduler left alone.

    With `reading` every worker logs in before its first task, and all share one limit of requests per host.
    """
    if scheduler is None and workers == 0:
        yield InProcess()
        return
    with _client(workers or os.cpu_count() or 1, scheduler, scratch) as client:
        if reading is not None:
            from geofm_pipeline.worker_plugins import prepare_workers

            beside(lambda: prepare_workers(client, reading))  # they log in over the network
        yield DaskRunner(client)


def check_address(scheduler: str) -> None:
    """Refuse what cannot be the address of a scheduler; it connects to nothing, so a run may ask this first.

    Raises
    ------
    ClusterError
        With the form that an address has.
    """
    parts = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}")
    if parts.scheme == "inproc":  # of a scheduler inside this process, named by numbers
        return
    try:
        fine = parts.scheme in _SCHEMES and parts.hostname is not None and parts.port is not None
    except ValueError:  # a port that is no number
        fine = False
    if not fine:
        raise ClusterError(
            f"--scheduler {scheduler!r} is no address of a Dask scheduler: give host:port or tcp://host:port as "
            "`dask scheduler` prints it, or leave --scheduler out for a local cluster"
        )


@contextlib.contextmanager
def _client(workers: int, scheduler: str | None, scratch: Path) -> Iterator[Client]:
    from distributed import Client

    opened = contextlib.ExitStack()
    cluster: LocalCluster | None = None
    try:
        if scheduler is not None:
            client = opened.enter_context(_connect(scheduler))
            beside(lambda: _check_workers(client, scheduler))
        else:
            with held():
                cluster = _local_cluster(workers, scratch)
                opened.callback(cluster.close)
                client = opened.enter_context(Client(cluster, set_as_default=False))
        yield client
    finally:
        try:
            with held():
                beside(opened.close, seconds=CLOSE_SECONDS)
        except TimeoutError:  # Dask may wait without end for what was broken off
            _kill_workers(cluster)


def _kill_workers(cluster: LocalCluster | None) -> None:
    """End the processes of a cluster that cannot be closed; everything that they write is whole or not there."""
    for nanny in () if cluster is None else cluster.workers.values():
        if nanny.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def _connect(scheduler: str) -> Client:
    """A client of a running scheduler; Dask waits for a silent server without end."""
    from distributed import Client

    check_address(scheduler)
    try:
        return beside(
            lambda: Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False), seconds=CONNECT_SECONDS + 1
        )
    except Exception as error:  # a server that is no scheduler answers with bytes that break Dask in many ways
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler} ({type(error).__name__}: {error}); check the address with "
            "`dask scheduler`'s own log line, or leave --scheduler out for a local cluster"
        ) from error


def _local_cluster(workers: int, scratch: Path) -> LocalCluster:
    """A started cluster whose processes leave Ctrl-C to this one."""
    from distributed import LocalCluster

    with without_ctrl_c():
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(scratch),
            silence_logs=logging.CRITICAL,
        )


def _check_workers(client: Client, scheduler: str) -> None:
    """Workers must be there and have our versions: other codecs would write other bytes."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"the Dask scheduler at {scheduler} has no workers; start some with `dask worker {scheduler}`"
        ) from error
    try:
        theirs: dict[str, dict[str, str]] = client.run(versions)  # pyright: ignore[reportAssignmentType]  # not async
    except ModuleNotFoundError as error:
        raise ClusterError(f"the workers of {scheduler} cannot import geofm ({error}); install it there") from error
    ours = versions()
    differ = sorted(
        {f"{name} {found[name]} on {at}" for at, found in theirs.items() for name in ours if found[name] != ours[name]}
    )
    if differ:
        here = ", ".join(f"{name} {version}" for name, version in ours.items())
        raise ClusterError(
            f"workers have other versions than here ({'; '.join(differ)}); here: {here}. Use one environment"
        )


class DaskRunner:
    """A Runner over a `distributed.Client`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        with held():
            threads: dict[str, int] = client.nthreads()  # pyright: ignore[reportAssignmentType]  # not async
            self.dashboard: str | None = client.dashboard_link
        self.workers = max(1, sum(threads.values()))

    def run(self, task: Callable[[A], R], arguments: Sequence[A]) -> Iterator[tuple[int, R]]:
        """Yield (position, result) as tasks finish; suspects of a worker's death are tried again alone, once."""
        suspects: list[int] = []
        yield from self._pass(task, arguments, list(range(len(arguments))), 2 * self.workers, suspects)
        condemned: list[int] = []
        for position in suspects:
            # A dying worker condemns the innocent tasks beside it: only a task that kills alone is guilty.
            yield from self._pass(task, arguments, [position], 1, condemned)
        if condemned:
            raise ClusterError(
                f"{len(condemned)} of {len(arguments)} tasks killed their workers even when run alone "
                f"(first: {arguments[condemned[0]]!r:.200}); usually memory: give workers more, or lower "
                "--group-shards. What was finished is kept; the same command continues"
            )

    def _pass(
        self, task: Callable[[A], R], arguments: Sequence[A], positions: list[int], ahead: int, dead: list[int]
    ) -> Iterator[tuple[int, R]]:
        from distributed import KilledWorker, as_completed

        waiting, tries = iter(positions), dict.fromkeys(positions, 0)
        running: dict[Future, int] = {}
        pool = as_completed(loop=self._client.loop)

        def submit(positions: Iterable[int]) -> None:
            with held():
                for position in positions:
                    future = self._client.submit(task, arguments[position], pure=False)
                    running[future] = position
                    pool.add(future)

        try:
            submit(itertools.islice(waiting, ahead))
            for future in _finished(pool):
                position = running.pop(future)
                try:
                    result: R = _result(future)
                except KilledWorker:
                    dead.append(position)
                except BlockReadError as error:
                    tries[position] += 1
                    if not error.worth_repeating or tries[position] > TRANSIENT_RETRIES:
                        raise
                    submit([position])
                    continue
                else:
                    yield position, result
                submit(itertools.islice(waiting, 1))
        finally:
            with held(), contextlib.suppress(TimeoutError):
                beside(lambda: self._client.cancel(list(running), force=True), seconds=CLOSE_SECONDS)


def _finished(pool: as_completed) -> Iterator[Future]:
    """Futures as they finish; unlike Dask's own iteration it can be interrupted while it waits."""
    while True:
        with held():
            over = pool.is_empty()  # asked first: what finishes between the two is seen next time
            ready: list[Future] = pool.next_batch(block=False)
        if over:
            return
        yield from ready
        if not ready:
            time.sleep(POLL_SECONDS)


def _result(future: Future) -> R:  # type: ignore[type-var]  # futures are untyped; the caller knows R
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError

    try:
        with held():
            result: R = future.result()
        return result
    except (CancelledError, CommClosedError, TimeoutError) as error:
        raise ClusterError(
            f"the Dask scheduler was lost ({type(error).__name__}: {error}); what was finished is kept, "
            "the same command continues once the scheduler is back"
        ) from error
