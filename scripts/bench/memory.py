"""What computations need in memory at their peak."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path

Make = Callable[[], Mapping[str, Callable[[], object]]]


def peak_memory_mb(make: Make) -> dict[str, float]:
    """What each candidate that `make` gives needs at its peak beyond what was there before, in MB.

    In a process of its own, which `make` is sent to: it must be picklable. For Linux.
    """
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # of the processes: what is freed counts no longer
    with get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        names = processes.apply(_names, (make,))
        return {name: processes.apply(_peak_memory_mb, (make, name)) for name in names}


def _names(make: Make) -> list[str]:
    return list(make())


def _peak_memory_mb(make: Make, name: str) -> float:
    run = make()[name]
    before = _status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here (getrusage has the parent's, too)
    for _ in range(3):
        run()
    return _status_mb("VmHWM") - before


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))
