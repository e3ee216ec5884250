"""Scripts as in fresh interpreters, at the price of one: each runs in a fork of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FORKING = """
import os, sys
exec(sys.argv[1])
folder, *scripts = sys.argv[2:]
for number, script in enumerate(scripts):
    if os.fork() == 0:
        for stream in (1, 2):
            os.dup2(os.open(f"{folder}/{number}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
        exec(script, {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def forked(scripts: Sequence[str], *, loaded: str) -> list[subprocess.CompletedProcess[str]]:
    """Run each script in a process of its own, in which `loaded` was executed.

    What `loaded` imports is in `sys.modules` of every script.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _FORKING, loaded, folder, *scripts]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, cwd=ROOT)
        return [
            subprocess.CompletedProcess(
                script, int(code), *(Path(folder, f"{number}.{stream}").read_text() for stream in (1, 2))
            )
            for number, (script, code) in enumerate(zip(scripts, done.stdout.split(), strict=True))
        ]
