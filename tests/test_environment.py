"""What the system tells of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from detector.environment import has_intel_cpu

_ALLOCATES_AND_STARTS_ANOTHER = """
import subprocess, sys
from detector.environment import peak_memory_mb
before = peak_memory_mb()
held = b"x" * 600_000_000
tell = "from detector.environment import peak_memory_mb; print(peak_memory_mb())"
print(before, peak_memory_mb(), subprocess.check_output([sys.executable, "-c", tell], text=True))
"""


def test_peak_memory_is_of_the_process_alone() -> None:
    output = subprocess.check_output([sys.executable, "-c", _ALLOCATES_AND_STARTS_ANOTHER], text=True)
    before, after, of_child = (float(word) for word in output.split())
    assert after > before + 550
    assert of_child < before + 300


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Intel(R) Xeon(R) Processor", True),
        ("Intel64 Family 6 Model 140 Stepping 1, GenuineIntel", True),  # Windows
        ("AMD EPYC", False),
        ("arm64", False),
    ],
)
def test_intels_processors_are_told_by_their_name(
    name: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.environment.processor_name", lambda: name)
    assert has_intel_cpu() is expected
