"""One limit of requests per second and host, whoever asks and however many they are."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.loopback import Reply, Request, serving

from geofm_pipeline.access import pace
from geofm_pipeline.access.settings import Access, Reading
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.cluster import open_runner


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.5, 500),
    steps=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 4), st.integers(1, 50)), min_size=1, max_size=80),
)
def test_no_window_of_time_holds_more_than_the_rate(rate: float, steps: list[tuple[float, int, int]]) -> None:
    """Whatever clients ask whenever: between any two moments at most rate × (time + burst) + 1 slots become usable."""
    clock = Clock()
    ledger = pace.Ledger(rate, clock)
    usable: list[tuple[float, int]] = []
    for pause, client, wanted in steps:
        clock.now += pause
        lease = ledger.reserve("host", str(client), wanted)
        assert 1 <= lease.count <= wanted
        usable.append((clock.now + lease.delay_s, lease.count))
    usable.sort()
    for i, (start, _) in enumerate(usable):
        total = 0
        for end, count in usable[i:]:
            total += count
            # a lease becomes usable when its last slot does
            assert total <= rate * (end - start + pace.BURST_S) + 1 + max(c for _, c in usable) + 1e-6


def test_a_busy_client_leaves_room_for_others() -> None:
    """A lease is a fair share of a quarter of a second: ten clients get a tenth of it each."""
    clock = Clock()
    ledger = pace.Ledger(400.0, clock)
    for client in range(10):
        ledger.reserve("host", str(client), 1)
    assert ledger.reserve("host", "0", 1000).count == 10


def test_hosts_do_not_share_a_limit() -> None:
    """A crowd at one host delays nobody at another."""
    clock = Clock()
    ledger = pace.Ledger(10.0, clock)
    for _ in range(50):
        ledger.reserve("crowded", "a", 5)
    assert ledger.reserve("quiet", "a", 1).delay_s == 0.0


def test_a_refusal_quiets_everybody_and_the_rate_recovers() -> None:
    """After a 429 nobody asks for as long as it said, then at half the rate, which is whole again after ten seconds."""
    clock = Clock()
    ledger = pace.Ledger(100.0, clock)
    ledger.slow_down("host", 7.0)
    ledger.slow_down("host", 3.0)  # a second voice of the same storm neither shortens the wait nor halves again
    assert ledger.rate("host") == 50.0
    assert ledger.reserve("host", "other client", 1).delay_s == pytest.approx(7.0)
    clock.now += 6.0
    assert ledger.rate("host") == pytest.approx(80.0)
    clock.now += 5.0
    assert ledger.rate("host") == 100.0


def test_a_storm_never_stops_the_rate_altogether() -> None:
    """However often a server refuses, a sixty-fourth of the rate remains."""
    clock = Clock()
    ledger = pace.Ledger(640.0, clock)
    for _ in range(100):
        ledger.slow_down("host", 0.0)
        clock.now += 1.0
    assert ledger.rate("host") >= 10.0


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_must_be_possible(rate: float) -> None:
    """A limit of nothing would wait for ever."""
    with pytest.raises(ValueError, match="above 0"):
        pace.Ledger(rate)


def test_threads_of_a_process_keep_the_rate() -> None:
    """Sixteen threads that want two hundred slots at 200 per second take about a second together."""
    found = pace.Pace(pace.Ledger(200.0), "me")
    taken: list[float] = []

    def work() -> None:
        while len(taken) < 200:
            taken.append(found.wait("host") * 0 + time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.sort()
    for i in range(len(taken) - 100):  # any hundred in a row
        assert taken[i + 100] - taken[i] > (100 / 200.0) - pace.BURST_S - 0.1


def _read_some(job: tuple[Access, str, int]) -> dict[str, object]:
    access, url, seed = job
    source, rng = ArchiveSource(access), random.Random(seed)
    for _ in range(40):
        assert source.read(url, rng.randrange(1000), 10)
    return source.tally.as_dict()


@pytest.mark.heavy
def test_a_cluster_keeps_one_limit_together_and_hears_one_refusal(tmp_path: Path) -> None:
    """Three worker processes: no window beyond the limit, and a 429 that one of them hears quiets all three."""
    times: deque[float] = deque()
    refused: list[float] = []

    def app(request: Request) -> Reply:
        times.append(time.monotonic())
        if len(times) == 60:
            refused.append(time.monotonic())
            return Reply(status=429, headers={"Retry-After": "2"})
        first, stop = request.span or (0, 1)
        where = {"Content-Range": f"bytes {first}-{stop - 1}/100000"}
        return Reply(status=206, body=bytes(stop - first), headers=where)

    with serving(app) as server:
        access = Access(requests_per_second=40.0, longest_wait_s=10.0)
        reading = Reading(access=access, login=False)
        jobs = [(access, f"{server.url}/f", seed) for seed in range(6)]
        with open_runner(workers=3, scheduler=None, scratch=tmp_path, reading=reading) as runner:
            found = [tally for _, tally in runner.run(_read_some, jobs)]
    assert sum(int(str(tally["requests"])) for tally in found) == 241
    assert [tally["retries"] for tally in found if tally["retries"]] == [{"429 too many requests": 1}]
    ordered = sorted(times)
    for i in range(len(ordered) - 40):
        assert ordered[i + 40] - ordered[i] > 1.0 - pace.BURST_S - 0.35
    after = [at - refused[0] for at in ordered if at > refused[0]]
    assert sum(0.2 < at < 1.7 for at in after) <= 6  # leases in hand of the others are small
