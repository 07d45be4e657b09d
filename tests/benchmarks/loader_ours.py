"""One pass of our loader, or of the codec alone; see loader.py.

python tests/benchmarks/loader_ours.py raw|owned|borrowed|http:MS FOLDER SAMPLES
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "pipeline")]

import google_crc32c  # noqa: E402
import numpy as np  # noqa: E402
from loader_memory import Peak, own_cpu, own_rss  # noqa: E402
from numcodecs import blosc  # type: ignore[attr-defined]  # noqa: E402

from geofm_model import Store  # noqa: E402
from geofm_model.chunks import Chunks  # noqa: E402
from geofm_model.files import Bytes  # noqa: E402
from geofm_model.loading import Loader  # noqa: E402

BATCH, PASSES = 32, 3


def rows_of(samples: int) -> list[int]:
    """Indices that are read: the training split of the synthetic stores."""
    return [index for index in range(samples) if index % 3]


def raw(folder: Path, samples: int) -> dict[str, float]:
    """CRC-32C and decode of chunks that are in memory, into the same arrays of each thread."""
    store = Store.open(folder / "store.zarr")
    parts = (store.image, store.fmask)
    chunks = [[_stored(folder, part, index) for part in parts] for index in rows_of(samples)]
    threads = len(os.sched_getaffinity(0))

    def work(first: int) -> None:
        outs = [np.empty(part.sample, dtype=part.dtype) for part in parts]
        for pair in chunks[first::threads]:
            for data, out in zip(pair, outs, strict=True):
                google_crc32c.value(data)
                blosc.decompress(data[:-4], out)

    work(0)
    begun, cpu = time.perf_counter(), own_cpu()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return figures(begun, cpu)


def _stored(folder: Path, part: Chunks, index: int) -> Bytes:
    offset, length = part.index[index].tolist()
    with (folder / "store.zarr" / part.file(index // part.shard_size)).open("rb") as stream:
        stream.seek(offset)
        return np.frombuffer(stream.read(length), dtype=np.uint8)


def loader(place: str, samples: int, *, borrow: bool, count: Callable[[], int] = lambda: 0) -> dict[str, float]:
    """A pass that warms and sums, then PASSES that are measured."""
    checksum, read = 0, len(rows_of(samples))
    with Peak(own_rss) as peak:
        stream = iter(Loader(place, batch_size=BATCH, epochs=1 + PASSES, borrow=borrow, seed=1))
        for _ in range(read // BATCH):
            batch = next(stream)
            checksum += sum(int(part.numpy().sum(dtype=np.int64)) for part in (batch.image, batch.fmask))
        del batch
        asked, begun, cpu = count(), time.perf_counter(), own_cpu()
        seen = sum(len(batch) for batch in stream)
        found = figures(begun, cpu)
    assert seen == PASSES * read
    # Two batches had been read ahead when the clock started, and no peer's were.
    costs = {name: value * read / (seen - 2 * BATCH) for name, value in found.items()}
    return {**costs, "peak_mb": peak.mb, "checksum": checksum, "requests": (count() - asked) / PASSES}


def figures(begun: float, cpu: float) -> dict[str, float]:
    """Costs since."""
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": own_cpu() - cpu, "peak_mb": 0.0, "checksum": 0}


def serve(folder: Path, latency_s: float) -> None:
    """Print the address of the folder on loopback and serve it; /count says how many requests there were."""
    from servers.loopback import Reply, Request, ranged, serving

    # From memory: reading a whole shard for each range would measure the server.
    files = {f"/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    asked = [0]

    def app(request: Request) -> Reply:
        if request.path == "/count":
            return Reply(body=str(asked[0]).encode())
        asked[0] += 1
        body = files.get(request.path)
        return Reply(status=404) if body is None else ranged(request, Reply(body=body))

    with serving(app, latency_s=latency_s, keep_log=False) as server:
        print(server.url, flush=True)
        sys.stdin.read()


@contextmanager
def served(folder: Path, milliseconds: str) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, __file__, "serve", str(folder), milliseconds]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def main() -> None:
    name, folder, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if name == "serve":
        serve(folder, last / 1000)
    elif name == "raw":
        print(json.dumps(raw(folder, last)))
    elif name.startswith("http:"):
        with served(folder, name.partition(":")[2]) as url:

            def count() -> int:
                return int(urllib.request.urlopen(f"{url}/count").read())

            print(json.dumps(loader(f"{url}/store.zarr", last, borrow=False, count=count)))
    else:
        print(json.dumps(loader(str(folder / "store.zarr"), last, borrow=name == "borrowed")))


if __name__ == "__main__":
    main()
