"""Small arrays from the host to the device: on CUDA through pinned memory, so that nobody waits for the copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(values: NDArray[np.generic[Any]], device: torch.device | str) -> Tensor:
    """The values as a tensor on a device; on the CPU it may share their memory.

    The copy is queued on the device's current stream. torch keeps the pinned memory until the stream has passed it.
    """
    found = torch.from_numpy(np.ascontiguousarray(values))
    if torch.device(device).type != "cuda":
        return found.to(device)
    return found.pin_memory().to(device, non_blocking=True)
