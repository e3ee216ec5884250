"""What is freed stays with the process. Each in a process of its own, whose allocator it changes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from detector.cli.allocator import keep_freed_memory

_COUNTS_PAGE_FAULTS = """
import resource
from detector.cli.allocator import keep_freed_memory

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

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="counts what only glibc can be told to keep"
)


def run(**variables: str) -> list[str]:
    environment = {
        name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"
    }
    command = [sys.executable, "-c", _COUNTS_PAGE_FAULTS]
    return subprocess.check_output(command, text=True, env=environment | variables).split()


@needs_glibc
@pytest.mark.parametrize("variables", [{}, {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=512"}])
def test_memory_is_not_fetched_again(variables: dict[str, str]) -> None:
    output, returned, kept = run(**variables)
    assert output == "True"
    assert int(kept) < int(returned) / 10


@needs_glibc
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "65536"),
        ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ("MALLOC_MMAP_MAX_", "65536"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536"),
    ],
)
def test_a_users_own_setting_stands(name: str, value: str) -> None:
    output, returned, kept = run(**{name: value})
    assert output == "False"
    assert int(kept) > int(returned) / 2


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
