"""What is freed stays with the process. Each in a process of its own, whose allocator it changes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_COUNTS_PAGE_FAULTS = """
import resource
from detector.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [bytearray(20 << 20) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
print(keep_freed_memory())
faults()
print(returned, faults())
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")


def run(**variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    command = [sys.executable, "-c", _COUNTS_PAGE_FAULTS]
    return subprocess.check_output(command, text=True, env=environment | variables).split()


def test_memory_is_not_fetched_again() -> None:
    said, returned, kept = run()
    assert said == "True"
    assert int(kept) < int(returned) / 10


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_a_users_own_setting_stands(name: str) -> None:
    said, returned, kept = run(**{name: "65536"})
    assert said == "False"
    assert int(kept) > int(returned) / 2
