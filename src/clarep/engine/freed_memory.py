"""Freed memory stays with the process, for the next tensors."""

import contextlib
import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT, _LARGEST = 256 << 20, 32 << 20  # bytes; the second is the most that every glibc takes


def keep_freed_memory() -> None:
    """Have glibc give freed memory back to the system above 256 MiB alone.

    By itself it does so above some 64 MiB, and the next operation waits for new pages, each filled
    with zeros first: a tenth of CLARID's time on a processor (docs/solver.md). A user's own
    settings of it stay; where there is another allocator nothing is done.
    """
    own = [name for name in os.environ if name.startswith("MALLOC_") and name.endswith("_")]
    if own or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
