"""The way to a GPU, beside the stream on which it computes.

Copies run on a stream of their own, one batch ahead of its use. What keeps them apart from everything else:

- the memory that is read is page-locked and filled again only when the copy's event is over (placing.Copied);
- the memory that is written is fresh and belongs to the copy stream; the stream that uses it waits for the event, and
  `record_stream` keeps torch from giving it to a later copy before that use is over;
- dropped amid a copy, the former is kept by torch until the copy is over, since it is a page-locked tensor of torch's,
  and the latter goes to later copies of the same stream only, which come after.

A loader has one lane for all its passes: torch keeps freed memory by stream, so a stream per pass would hoard it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Sent(Protocol):
    """A copy that was begun."""

    def is_over(self) -> bool:
        """Whether what was sent may be changed; does not wait."""
        ...

    def wait(self) -> None:
        """Until what was sent may be changed."""
        ...

    def take(self) -> dict[str, Tensor]:
        """The tensors on the device, for what is queued there from now on by this thread; does not wait."""
        ...


class Lane(Protocol):
    """A way to a device."""

    def locked(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """New memory that can be sent without a copy in between; called by any thread."""
        ...

    def lock(self, tensor: Tensor) -> Tensor:
        """A copy of a small tensor in such memory."""
        ...

    def send(self, tensors: dict[str, Tensor]) -> Sent:
        """Begin to copy; does not wait."""
        ...


class CudaLane:
    """To a GPU; implements Lane.

    Parameters
    ----------
    device : with an index, which `torch.device("cuda")` lacks
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def locked(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See :class:`Lane`."""
        with torch.cuda.device(self.device):  # a thread begins with device 0, where this process may have no business
            return torch.empty(shape, dtype=dtype, pin_memory=True)

    def lock(self, tensor: Tensor) -> Tensor:
        """See :class:`Lane`."""
        with torch.cuda.device(self.device):
            return tensor.pin_memory()

    def send(self, tensors: dict[str, Tensor]) -> Sent:
        """See :class:`Lane`."""
        with torch.cuda.stream(self._stream):
            found = {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # a wait takes no core
            event.record(self._stream)
        return _CudaSent(found, event, self.device)


class _CudaSent:
    """Implements Sent."""

    def __init__(self, tensors: dict[str, Tensor], event: torch.cuda.Event, device: torch.device) -> None:
        self._tensors, self._event, self._device = tensors, event, device

    def is_over(self) -> bool:
        """See :class:`Sent`."""
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """See :class:`Sent`."""
        self._event.synchronize()

    def take(self) -> dict[str, Tensor]:
        """See :class:`Sent`."""
        tensors, self._tensors = self._tensors, {}  # the caller's alone from now on: it decides when memory is free
        using = torch.cuda.current_stream(self._device)
        using.wait_event(self._event)
        for tensor in tensors.values():
            tensor.record_stream(using)
        return tensors


def check_gpu(device: torch.device) -> None:
    """ValueError where torch sees no such GPU; does not wake one up."""
    if not torch.cuda.is_available():
        raise ValueError(
            f"device {device} was asked for, but torch sees no GPU here: use device='cpu', or a CUDA build of torch"
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ValueError(f"device {device} was asked for, but torch sees {torch.cuda.device_count()} GPUs, from cuda:0")


def cuda_lane(device: torch.device) -> CudaLane:
    """A lane to a GPU, the current one where the device has no index; raises as :func:`check_gpu`."""
    check_gpu(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return CudaLane(torch.device("cuda", index))
