"""Which process this is among those that train together, and sums over all of them.

One process needs none of torch.distributed. Several are started by torchrun; all hold the same weights (DDP).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Number on this machine: of its GPU."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Ranks:
        """As torchrun says in the environment; alone without it.

        Raises
        ------
        ValueError
            When it says what cannot be: a process of a higher number would write nothing, and nobody else would.
        """
        said = {name: environment.get(name.upper(), default) for name, default in _DEFAULTS.items()}
        if not all(text.isdecimal() for text in said.values()) or not int(said["rank"]) < int(said["world_size"]):
            named = ", ".join(f"{name.upper()}={text}" for name, text in said.items())
            raise ValueError(
                f"the environment has {named}, where RANK must be below WORLD_SIZE: start processes with torchrun, or "
                "unset the three"
            )
        return cls(**{name: int(text) for name, text in said.items()})

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1

    def device(self, wanted: str) -> torch.device:
        """The device of this process; `auto` is a GPU where there is one.

        Raises
        ------
        ValueError
            When it is not there.
        """
        if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if wanted not in ("auto", "cuda"):
            raise ValueError(f"device must be auto, cpu or cuda, got {wanted!r}; CUDA_VISIBLE_DEVICES chooses a GPU")
        if not torch.cuda.is_available():
            raise ValueError("device is cuda, but torch finds no GPU here: use --device=cpu, or a CUDA build of torch")
        if self.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"this is process {self.local_rank} of this machine, which has {torch.cuda.device_count()} GPU: start "
                "as many with torchrun --nproc-per-node"
            )
        return torch.device("cuda", self.local_rank)

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in some process; the same answer in all."""
        return here if self.alone else bool(self.sum(torch.tensor([float(here)], device=device)).item())

    def agree(self, values: Sequence[int], device: torch.device) -> bool:
        """Whether all processes have the same whole numbers below 2⁵³; the same answer in all."""
        mine = torch.tensor([float(value) for value in values], dtype=torch.float64, device=device)
        first = mine.clone() if self.main else torch.zeros_like(mine)
        return not self.any(not torch.equal(self.sum(first), mine), device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if not self.alone:
            dist.all_reduce(values)
        return values


_DEFAULTS = {"rank": "0", "world_size": "1", "local_rank": "0"}


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Join the other processes, and leave them at the end.

    After an error nothing more is said to the others: one of them may be gone, and a last word to it would hang.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if ranks.alone:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    yield
    dist.destroy_process_group()
