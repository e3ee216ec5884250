"""Settings of the C library's allocator for work that repeatedly frees and requests the same memory."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names, in glibc's malloc.h
_NEVER, _LARGEST_KEPT_BYTES = -1, 32 << 20  # the most that glibc accepts
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keep freed memory for later requests, for the life of this process; return whether glibc accepted it.

    By default glibc returns it to the system, and a training step on a CPU then faults it in again page by
    page. Blocks above 32 MiB are still returned. There is no effect without glibc, with another preloaded
    allocator, and if the environment (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`,
    `MALLOC_MMAP_MAX_`, `GLIBC_TUNABLES` of malloc) has its own settings.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    set_by_user = any(name in os.environ for name in _OF_THE_USER) or "glibc.malloc." in tunables
    if set_by_user or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES))
