"""Output that cannot be written ends nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

PROGRAM = """
import sys
from detector.cli.streams import keep_writing
keep_writing()
for number in range(3):
    print("line", number)
    sys.stdin.readline()
print("done", file=sys.stderr)
"""


def start(stdout: int | IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(command, stdin=-1, stdout=stdout, stderr=-1, text=True)


def test_a_full_disk_is_told_once() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("the system has no /dev/full")
    with full.open("w") as file:
        process = start(file)
        _, message = process.communicate("\n\n\n", timeout=60)
    assert process.returncode == 0
    assert message.count("cannot be written any more (No space left on device)") == 1
    assert message.endswith("done\n")


def test_a_closed_pipe_is_told_once_and_lines_are_written_at_once() -> None:
    process = start(subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "line 0\n"  # while it waits
    process.stdout.close()
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("\n\n\n")
    process.stdin.close()
    message = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert message.count("(Broken pipe)") == 1
    process.stderr.close()
