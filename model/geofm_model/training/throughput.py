"""How fast a run is, against what its device could do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from geofm_model.training.settings import Precision

_DATASHEET = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "A10": 125e12,
    "L4": 121e12,
    "V100": 0.0,
}
"""Dense bfloat16 FLOP/s on tensor cores by NVIDIA's data sheets (without sparsity); V100 has no bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Of some steps."""

    samples_per_second: float
    """Of all ranks together; a repeated view is no further sample."""
    utilisation: float
    """FLOP/s of the model (forward and backward, nothing recomputed) over the device's peak: MFU."""
    data_wait: float
    """Share of the time in which the network waited for data."""


class Stopwatch:
    """Measures pace between two looks.

    Parameters
    ----------
    flops : of the network for one sample and all its repeats, forward and backward
    peak : FLOP/s of one device
    """

    def __init__(self, *, flops: float, peak: float, devices: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._flops, self._peak, self._clock = flops, peak * devices, clock
        self._start, self._samples, self._waited = clock(), 0, 0.0

    def waited(self, seconds: float) -> None:
        """Data were waited for."""
        self._waited += seconds

    def done(self, samples: int) -> None:
        """Samples were learnt from."""
        self._samples += samples

    def pause(self, seconds: float) -> None:
        """Time that belongs to no step: validation, pictures, checkpoints."""
        self._start += seconds

    def look(self) -> Pace:
        """Pace since the last look."""
        now = self._clock()
        seconds = max(now - self._start, 1e-9)
        rate = self._samples / seconds
        pace = Pace(
            samples_per_second=rate,
            utilisation=rate * self._flops / self._peak,
            data_wait=min(1.0, self._waited / seconds),
        )
        self._start, self._samples, self._waited = now, 0, 0.0
        return pace


def peak_flops(device: torch.device, precision: Precision) -> tuple[float, str]:
    """FLOP/s a device could do, and where that is from: a GPU's data sheet, else measured matrix products."""
    if device.type == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name(device)
        known = [rate for part, rate in _DATASHEET.items() if re.search(rf"\b{part}\b", name) and rate]
        if known and "MIG" not in name:  # a slice has no data sheet
            return known[0], f"data sheet of {name}"
    return matmul_rate(device, precision), "matrix products measured at the start"


def matmul_rate(device: torch.device, precision: Precision, *, size: int | None = None, seconds: float = 0.2) -> float:
    """FLOP/s of square matrix products on a device in the run's precision: best of some rounds of `seconds` in all."""
    size = size or (8192 if device.type == "cuda" else 512)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    source = torch.Generator(device).manual_seed(0)  # not torch's own, on which a run's first weights depend
    a, b = (torch.randn(size, size, device=device, generator=source).to(dtype) for _ in range(2))
    best, spent = 0.0, 0.0
    while spent < seconds or not best:
        _wait(device)
        start = time.perf_counter()
        torch.matmul(a, b)
        _wait(device)
        took = time.perf_counter() - start
        best, spent = max(best, 2 * size**3 / took), spent + took
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
