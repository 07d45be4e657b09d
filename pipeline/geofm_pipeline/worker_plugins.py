"""What every worker of a cluster gets before its first task: its own login, and a share of one limit of requests.

Nothing secret travels: a plugin carries addresses and settings, the worker finds its credentials in its own
environment or netrc file. The ledger of requests lives on the scheduler; a worker asks it for slots a few times per
second and host.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from distributed import SchedulerPlugin, WorkerPlugin
from distributed.comm.core import CommClosedError
from distributed.utils import sync

from geofm_pipeline.access import pace
from geofm_pipeline.access.faults import FetchError
from geofm_pipeline.access.notices import NOTICES
from geofm_pipeline.access.settings import Access, Reading
from geofm_pipeline.access.transport import transport
from geofm_pipeline.errors import ArchiveError, LoginError

if TYPE_CHECKING:
    from distributed import Client, Scheduler, Worker


TOPIC = "geofm-network"
"""Of the events by which workers tell the driving process what they wait for."""
ANSWER_S = 5.0
"""For the scheduler to answer; after that a worker keeps the limit for itself."""


class LedgerPlugin(SchedulerPlugin):  # type: ignore[misc]  # distributed publishes no types
    """Keeps the ledger of requests on the scheduler; a later run's takes its place."""

    name = "geofm-ledger"
    idempotent = False

    def __init__(self, rate: float) -> None:
        self._rate = rate

    async def start(self, scheduler: Scheduler) -> None:
        """Answer workers that ask for slots."""
        ledger = pace.Ledger(self._rate)

        def reserve(host: str, client: str, wanted: int) -> dict[str, float]:
            lease = ledger.reserve(host, client, wanted)
            return {"count": lease.count, "delay_s": lease.delay_s}

        def slow_down(host: str, seconds: float) -> None:
            ledger.slow_down(host, seconds)

        scheduler.handlers["geofm_reserve"] = reserve
        scheduler.handlers["geofm_slow_down"] = slow_down


class SchedulerBook:
    """The ledger on the scheduler as a worker's threads see it; implements pace.Book."""

    def __init__(self, worker: Worker, rate: float) -> None:
        self._worker, self._alone = worker, pace.Ledger(rate)

    def reserve(self, host: str, client: str, wanted: int) -> pace.Lease:
        """See :class:`geofm_pipeline.access.pace.Book`; a worker that lost its scheduler keeps the limit for itself."""
        try:
            found = self._ask("geofm_reserve", host=host, client=client, wanted=wanted)
        except (CommClosedError, OSError, TimeoutError):
            return self._alone.reserve(host, client, wanted)
        return pace.Lease(count=int(found["count"]), delay_s=found["delay_s"])

    def slow_down(self, host: str, seconds: float) -> None:
        """See :class:`geofm_pipeline.access.pace.Book`."""
        try:
            self._ask("geofm_slow_down", host=host, seconds=seconds)
        except (CommClosedError, OSError, TimeoutError):
            self._alone.slow_down(host, seconds)

    def _ask(self, handler: str, **words: object) -> dict[str, float]:
        found: dict[str, float] = sync(
            self._worker.loop,
            partial(getattr(self._worker.scheduler, handler), **words),
            callback_timeout=ANSWER_S,
        )
        return found


class ReadingPlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives a worker its login and its share of the limit."""

    name = "geofm-reading"

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def setup(self, worker: Worker) -> None:
        """Runs on every worker, also on those that join later; a failed login is raised here."""
        access = self._reading.access
        pace.share(SchedulerBook(worker, access.requests_per_second), worker.address)
        NOTICES.listen(lambda host, words: worker.log_event(TOPIC, [host, words]))
        if self._reading.login:
            _log_in(access)

    def teardown(self, worker: Worker) -> None:
        """Leave the limit."""
        pace.share(None)
        NOTICES.listen(None)


def _log_in(access: Access) -> None:
    transport(access).routes.earthdata.token()


def prepare_workers(client: Client, reading: Reading) -> None:
    """Register both plugins, and hear what workers wait for.

    Raises
    ------
    LoginError
        When a worker cannot log in; the message says why, and that it was a worker.
    """
    client.register_plugin(LedgerPlugin(reading.access.requests_per_second))
    client.subscribe_topic(TOPIC, lambda event: NOTICES.tell(*event[1]))
    try:
        if reading.login:  # first one alone: many wrong passwords at once would lock the account
            known: dict[str, int] = client.nthreads()  # pyright: ignore[reportAssignmentType]  # not async
            client.run(_log_in, reading.access, workers=list(known)[:1])
        client.register_plugin(ReadingPlugin(reading))
    except FetchError as error:
        if error.transient:
            raise ArchiveError(f"a worker could not log in: {error.cause}; run the same command again") from None
        raise LoginError(f"a worker could not log in: {error.cause}") from None
