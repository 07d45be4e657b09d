"""What one range request of 90 kB costs by HTTP client: CPU time and requests per second at 8 and 64 in flight.

    python tests/benchmarks/http_clients.py [--peer-python PY] [--archive DIR] [--rounds 3] [--json FILE]

The server (remote_server.py, core 0) waits 30 ms and sends 80 MB/s per connection, so 8 in flight can make at most 257
requests/s, 64 at most 2058. Every client runs in a fresh process on the last core, sends a bearer token and reads the
body as bytes; connections are open before the clock starts. `ours` is ArchiveSource with all its checks, retries and
counting; the others do nothing but the request. async-tiff fetches whole blocks, whose size it cannot choose (the mean
is in the table). DIR holds HLS-like COGs, such as the simulator's benchmark archive, one of which is read. PY is a
Python that has what this one lacks; missing clients are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from extraction_peers import one_core, peak_mb  # noqa: E402  # scripts beside this one
from remote_server import serving  # noqa: E402

SIZE = 90_000
TOKEN = {"Authorization": "Bearer x"}
IN_FLIGHT = (8, 64)
Get = Callable[[int], int]
"""First byte → bytes received."""
AsyncGet = Callable[[int], Awaitable[int]]


def ours(url: str, in_flight: int) -> Get:
    from geofm_pipeline.access.settings import Access
    from geofm_pipeline.access.source import ArchiveSource

    source = ArchiveSource(Access(in_flight=in_flight, requests_per_second=1e9))
    return lambda start: len(source.read(url, start, SIZE))


def pycurl_threads(url: str, _: int) -> Get:
    import pycurl

    local = threading.local()

    def handle() -> Any:
        made = pycurl.Curl()
        made.setopt(pycurl.NOSIGNAL, 1)
        made.setopt(pycurl.BUFFERSIZE, 512 * 1024)
        made.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in TOKEN.items()])
        made.setopt(pycurl.URL, url)
        return made

    def get(start: int) -> int:
        curl = local.__dict__.get("curl") or local.__dict__.setdefault("curl", handle())
        body = io.BytesIO()
        curl.setopt(pycurl.RANGE, f"{start}-{start + SIZE - 1}")
        curl.setopt(pycurl.WRITEDATA, body)
        curl.perform()
        assert curl.getinfo(pycurl.RESPONSE_CODE) == 206
        return len(body.getvalue())

    return get


def obstore_threads(url: str, _: int) -> Get:
    import obstore

    store, path = _obstore(url)
    return lambda start: len(bytes(obstore.get(store, path, options={"range": (start, start + SIZE)}).bytes()))


def urllib3_threads(url: str, in_flight: int) -> Get:
    import urllib3

    pool = urllib3.PoolManager(maxsize=in_flight, block=True)
    return lambda start: len(pool.request("GET", url, headers={**TOKEN, **_range(start)}, retries=False).data)


def http_client_threads(url: str, _: int) -> Get:
    import http.client

    local, parts = threading.local(), urlsplit(url)

    def get(start: int) -> int:
        made = local.__dict__.get("made")
        made = made or local.__dict__.setdefault("made", http.client.HTTPConnection(str(parts.hostname), parts.port))
        made.request("GET", parts.path, headers={**TOKEN, **_range(start)})
        return len(made.getresponse().read())

    return get


async def obstore_async(url: str, _: int) -> AsyncGet:
    import obstore

    store, path = _obstore(url)

    async def get(start: int) -> int:
        result = await obstore.get_async(store, path, options={"range": (start, start + SIZE)})
        return len(bytes(await result.bytes_async()))

    return get


async def aiohttp_client(url: str, in_flight: int) -> AsyncGet:
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight), headers=TOKEN)

    async def get(start: int) -> int:
        async with session.get(url, headers=_range(start)) as reply:
            return len(await reply.read())

    return get


async def async_tiff_fetch(url: str, _: int) -> AsyncGet:
    from async_tiff import TIFF
    from async_tiff.store import HTTPStore

    root, _hls, path = url.partition("/HLS.")
    file = await TIFF.open(f"HLS.{path}", store=HTTPStore.from_url(root, client_options={"allow_http": True}))

    async def get(start: int) -> int:
        tile = await file.fetch_tile(start % 14, start // 14 % 14, 0)
        return len(tile.compressed_bytes)

    return get


def _range(start: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-{start + SIZE - 1}"}


def _obstore(url: str) -> tuple[Any, str]:
    from obstore.store import HTTPStore

    parts = urlsplit(url)
    options = {"allow_http": True, "default_headers": TOKEN}
    return HTTPStore.from_url(f"{parts.scheme}://{parts.netloc}", client_options=options), parts.path.lstrip("/")


THREADED = {f.__name__: f for f in (ours, pycurl_threads, obstore_threads, urllib3_threads, http_client_threads)}
ASYNCIO = {f.__name__: f for f in (obstore_async, aiohttp_client, async_tiff_fetch)}


def starts(count: int) -> list[int]:
    """First bytes, each once, spread over the first 16 MB of the file."""
    return [i * 7919 % 16_000_000 for i in range(count)]


def run_threads(get: Get, in_flight: int, count: int) -> dict[str, float]:
    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(get, starts(4 * in_flight)))
        wall, cpu = time.perf_counter(), time.process_time()
        return record(wall, cpu, list(pool.map(get, starts(count))))


async def run_async(client: Callable[[str, int], Awaitable[AsyncGet]], url: str, in_flight: int, count: int) -> Any:
    get, limit = await client(url, in_flight), asyncio.Semaphore(in_flight)

    async def one(start: int) -> int:
        async with limit:
            return await get(start)

    await asyncio.gather(*map(one, starts(4 * in_flight)))
    wall, cpu = time.perf_counter(), time.process_time()
    return record(wall, cpu, await asyncio.gather(*map(one, starts(count))))


def record(wall: float, cpu: float, sizes: list[int]) -> dict[str, float]:
    """Costs since `wall` and `cpu` of requests that brought `sizes` bytes."""
    seconds, spent, count = time.perf_counter() - wall, time.process_time() - cpu, len(sizes)
    mean = sum(sizes) / count
    return {"cpu_us": 1e6 * spent / count, "per_s": count / seconds, "kb": mean / 1000, "peak_mb": peak_mb()}


def run_one(name: str, url: str, in_flight: int, count: int) -> dict[str, float]:
    """One client in this process."""
    one_core()
    if name in THREADED:
        return run_threads(THREADED[name](url, in_flight), in_flight, count)
    found: dict[str, float] = asyncio.run(run_async(ASYNCIO[name], url, in_flight, count))
    return found


def run_fresh(name: str, url: str, in_flight: int, count: int, peer_python: str) -> dict[str, float] | None:
    """One client in a process of its own; None where its package is missing."""
    python = sys.executable if name == "ours" else peer_python
    command = [python, str(Path(__file__).resolve()), "--run", name, url, str(in_flight), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(archive: Path, rounds: int, count: int, peer_python: str) -> dict[str, dict[str, float]]:
    """Medians by client and requests in flight, in interleaved rounds."""
    found: dict[str, list[dict[str, float]]] = {}
    path = next(archive.glob("HLS.*/*.B02.tif")).relative_to(archive)
    with serving(archive) as url:
        for _, in_flight, name in product(range(rounds), IN_FLIGHT, (*THREADED, *ASYNCIO)):
            few = max(1, count * in_flight // max(IN_FLIGHT))
            one = run_fresh(name, f"{url}/{path}", in_flight, few, peer_python)
            if one is not None:
                found.setdefault(f"{name}:{in_flight}", []).append(one)
    return {name: {key: median(r[key] for r in rs) for key in rs[0]} for name, rs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=Path(tempfile.gettempdir()) / "geofm-benchmark-archive")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=4000, help="at most in flight; fewer with fewer")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, url = options.run[:2]
        print(json.dumps(run_one(name, url, int(options.run[2]), int(options.run[3]))), flush=True)
        os._exit(0)  # async-tiff's threads crash an interpreter that ends in an orderly way
    results = compare(options.archive.resolve(), options.rounds, options.requests, options.peer_python)
    print(f"{'':26} {'CPU µs/request':>14} {'requests/s':>10} {'kB':>5} {'peak MB':>8}")
    for name, r in results.items():
        print(f"{name:26} {r['cpu_us']:14.0f} {r['per_s']:10.0f} {r['kb']:5.0f} {r['peak_mb']:8.0f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
