"""Signals held back around Dask, and heard though Python drops them."""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from geofm_pipeline.cluster import open_runner
from geofm_pipeline.interrupts import beside, heard_again, held, without_ctrl_c

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DeliveredError(Exception):
    """What the handlers of these tests raise."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[Callable[[], None]]:
    """Handlers that raise DeliveredError; the fixture's value checks that they are in place."""

    def deliver(number: int, _frame: object) -> None:
        raise DeliveredError(number)

    before = {number: signal.signal(number, deliver) for number in SIGNALS}

    def in_place() -> None:
        assert all(signal.getsignal(number) is deliver for number in SIGNALS)

    try:
        yield in_place
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_comes_after_what_is_held(handlers: Callable[[], None], number: int) -> None:
    """The code runs to its end, then the handler of before is called with the same signal."""
    steps = []

    @held()
    def work() -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        steps.append("whole")

    with pytest.raises(DeliveredError) as raised:
        work()
    assert steps == ["whole"]
    assert raised.value.args == (number,)
    handlers()


def test_without_a_signal_nothing_changes(handlers: Callable[[], None]) -> None:
    """Handlers are back, and errors come through."""
    with pytest.raises(ZeroDivisionError), held():
        _ = 1 // 0
    handlers()


def test_a_second_signal_is_heard_at_once(handlers: Callable[[], None]) -> None:
    """Who presses Ctrl-C twice does not wait."""
    steps = []

    @held()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        steps.append("first")
        signal.raise_signal(signal.SIGINT)
        steps.append("never")

    with pytest.raises(DeliveredError):
        work()
    assert steps == ["first"]
    handlers()


def test_an_ignored_signal_stays_ignored() -> None:
    """As a shell's background jobs ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_holds_may_be_nested(handlers: Callable[[], None]) -> None:
    """The outermost one delivers, whatever was raised within."""
    steps = []

    @held()
    def work() -> None:
        with held():
            signal.raise_signal(signal.SIGTERM)
            steps.append("inner")
        steps.append("outer")

    with pytest.raises(DeliveredError):
        work()
    assert steps == ["inner", "outer"]
    handlers()


@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_ctrl_c_waits_and_what_is_started_never_gets_it(late: bool) -> None:
    """A process started meanwhile, and one that a thread of then starts later, live on; this one hears the signal."""
    sleep = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    go, started = threading.Event(), queue.SimpleQueue[subprocess.Popen[bytes]]()

    def start() -> None:
        go.wait(20)
        started.put(subprocess.Popen(sleep, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    @without_ctrl_c()
    def work() -> None:
        thread = threading.Thread(target=start)
        thread.start()
        if not late:
            go.set()
            thread.join()

    work()
    go.set()
    with started.get() as child:
        assert child.stdout
        assert child.stdin
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(20) == 0
    with pytest.raises(DeliveredError):
        without_ctrl_c()(lambda: signal.raise_signal(signal.SIGINT))()


@pytest.mark.parametrize("context", [held, without_ctrl_c])
def test_other_threads_leave_signals_alone(context: Callable[[], object]) -> None:
    """Only the main thread may set handlers: elsewhere the code just runs."""

    def work() -> str:
        with context():  # type: ignore[attr-defined]
            return threading.current_thread().name

    assert beside(work) == "geofm-beside"


def test_beside_gives_results_errors_and_time_outs() -> None:
    """What the call returns or raises, unless it takes too long."""

    def fail() -> None:
        raise DeliveredError("mine")

    assert beside(lambda: 3) == 3
    with pytest.raises(DeliveredError, match="mine"):
        beside(fail)
    with pytest.raises(TimeoutError):
        beside(lambda: time.sleep(0.5), seconds=0.01)


def test_a_signal_ends_the_waiting_beside() -> None:
    """The call itself goes on to its end."""
    begun, end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(20)
        ended.set()

    def interrupt() -> None:
        begun.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(DeliveredError):
        beside(work)
    assert not ended.is_set()
    end.set()
    assert ended.wait(20)


class Dropping:
    """Its end is interrupted, as by a signal that comes just then."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error("while something was dropped")


def test_an_interrupt_that_python_drops_is_raised_anew() -> None:
    """One that struck inside `__del__` comes again, outside of it."""

    @heard_again()
    def work() -> None:
        Dropping(KeyboardInterrupt)
        time.sleep(20)

    with pytest.raises(DeliveredError):
        work()


def test_other_errors_that_python_drops_go_where_they_went(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the hook of before, which is back afterwards."""
    seen: list[BaseException | None] = []

    def hook(lost: sys.UnraisableHookArgs) -> None:
        seen.append(lost.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    with heard_again():
        Dropping(ZeroDivisionError)
    assert [type(error) for error in seen] == [ZeroDivisionError]
    assert sys.unraisablehook is hook


def short(x: int) -> int:
    time.sleep(0.002)
    return x


@pytest.mark.heavy
def test_a_cluster_survives_every_interrupt(tmp_path: Path) -> None:
    """A thousand signals at random moments of runs: each is heard, the cluster works on and is closed afterwards."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    moments = random.Random(3)
    with heard_again(), open_runner(workers=2, scheduler=None, scratch=tmp_path) as runner:

        def interrupted() -> None:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.001, 0.04))
            for _ in runner.run(short, range(10_000)):
                pass

        for _ in range(1000):
            with pytest.raises(KeyboardInterrupt):
                interrupted()
        assert sorted(runner.run(short, range(50))) == [(x, x) for x in range(50)]


STUCK = """
import os, sys, time
from pathlib import Path
from geofm_pipeline import cluster

if __name__ == "__main__":
    cluster.CLOSE_SECONDS = 1
    with cluster._client(2, None, Path(sys.argv[1])) as client:
        print(*client.run(os.getpid).values(), flush=True)
        client.loop.add_callback(time.sleep, 1000)
        time.sleep(0.5)
"""
"""A job whose cluster cannot be closed: its event loop does nothing any more."""


@pytest.mark.heavy
def test_a_cluster_that_cannot_be_closed_is_left(tmp_path: Path) -> None:
    """The process ends by itself, and with it its workers."""
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path)], check=True, capture_output=True, text=True, timeout=90
    )
    workers = [int(word) for word in done.stdout.split()]
    assert len(workers) == 2
    assert not any(psutil.pid_exists(pid) for pid in workers)
