"""Time of an epoch's order, the permutation of all samples, plain and weighted.

    python tests/benchmarks/order.py [--samples 10000000] [--rounds 5]

One thread. Beside it numpy's own shuffle of as many numbers, which no two runs could share piece by piece. Medians of
interleaved rounds; memory is the peak above what stood before, order included.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from statistics import median

import numpy as np

from geofm_model.loading.order import Stream, permutation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    n = options.samples
    weights = np.random.default_rng(0).gamma(2.0, size=n)
    ways: dict[str, Callable[[int], object]] = {
        "order": lambda epoch: permutation(n, seed=0, epoch=epoch),
        "weighted order": lambda epoch: Stream(n, seed=0, weights=weights).epoch(epoch),
        "numpy permutation": lambda epoch: np.random.default_rng(epoch).permutation(n),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(options.rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way(epoch)
            seconds[name].append(time.perf_counter() - begin)
    for name, way in ways.items():
        tracemalloc.start()
        way(0)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        print(f"{name:18} {n:,} samples: {median(seconds[name]):.2f} s, peak {peak:,.0f} MB")


if __name__ == "__main__":
    main()
