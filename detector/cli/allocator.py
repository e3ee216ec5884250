"""The C library's allocator, set for work that frees and asks for the same memory again and again."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names, in glibc's malloc.h
_NEVER, _LARGEST_KEPT_BYTES = -1, 32 << 20  # the most that glibc accepts
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Keep what is freed for the next request, for the life of this process. Returns whether glibc was told.

    glibc hands it back to the system by default, and a training step on a CPU then takes it anew page by
    page. Blocks above 32 MiB still go back. Without effect off glibc, where another allocator is preloaded,
    and where the environment (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `MALLOC_MMAP_MAX_`,
    `GLIBC_TUNABLES` of malloc) has settings of its own.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    set_by_user = any(name in os.environ for name in _OF_THE_USER) or "glibc.malloc." in tunables
    if set_by_user or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES))
