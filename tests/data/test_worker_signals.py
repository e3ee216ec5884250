"""The signals that a loader's worker hears."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import pytest

from detector.data.worker_signals import leave_signals_to_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no signal tells its sender")


def _work(end: Connection) -> None:
    leave_signals_to_parent()
    end.send("ready")
    while True:
        end.send(end.recv())


def test_signals_of_a_job_are_ignored_and_the_parents_own_ends_quietly() -> None:
    mine, its = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(its,), daemon=True)
    worker.start()
    assert mine.recv() == "ready"
    assert worker.pid is not None
    for name in ("TERM", "INT", "HUP", "USR1"):  # of another process, as timeout(1) or a scheduler sends them
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
        mine.send(name)
        assert mine.recv() == name
    worker.terminate()
    worker.join(timeout=30)
    assert worker.exitcode == 0


def test_a_worker_hears_what_comes_after_the_end_of_its_parent() -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            leave_signals_to_parent()
            os.write(writing, f"{os.getpid()}\n".encode())
            time.sleep(60)
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(writing)
    with os.fdopen(reading) as worker:
        os.kill(int(worker.readline()), signal.SIGTERM)
        assert worker.read() == ""  # it has let go of its end of the pipe
