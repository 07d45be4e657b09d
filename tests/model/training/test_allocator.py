"""Freed memory is kept for the next step, where the C library can, and torch asks for huge pages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import os, resource, sys
import torch
from geofm_model.training.allocator import prepare_memory
print(prepare_memory() if "keep" in sys.argv else None)
def step():
    held = [torch.ones(3 << 20, dtype=torch.uint8) for _ in range(64)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step(), step()
before = faults()
step()
print(faults() - before, os.environ.get("THP_MEM_ALLOC_ENABLE"))
"""
OURS = ("MALLOC_", "GLIBC_", "THP_")
PAGES = 64 * (3 << 20) // 4096


def steps(*words: str, **environment: str) -> tuple[str, int, str]:
    """What prepare_memory answered, page faults of a third step, and whether torch asks for huge pages, in a process
    of its own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    found = subprocess.run(
        [sys.executable, "-c", STEPS, *words], env={**others, **environment}, capture_output=True, text=True, check=True
    )
    answer, faults, huge = found.stdout.split()
    return answer, int(faults), huge


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_step_takes_the_memory_that_the_last_one_freed() -> None:
    """A step's pages are there from the step before."""
    answer, faults, huge = steps("keep")
    assert (answer, huge) == ("True", "1")
    assert faults < PAGES // 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_settings_of_the_environment_are_left_alone() -> None:
    """Who has chosen keeps his choice, here to hand back all that is freed."""
    answer, faults, huge = steps("keep", MALLOC_TRIM_THRESHOLD_="100000", THP_MEM_ALLOC_ENABLE="0")
    assert (answer, huge) == ("False", "0")
    assert faults > PAGES // 2
