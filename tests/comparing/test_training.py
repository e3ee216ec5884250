"""Training of what was planned, at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import pytest
import torch

from detector.comparing import training
from detector.comparing.plan import PlannedRun
from detector.run_folder import RunFolder
from tests.comparing.planned import planned_runs


def test_parallel_2_trains_two_at_a_time_each_on_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, lock = Barrier(2), Lock()
    under_way: list[str] = []
    seen: list[set[str]] = []

    def train_run(run: PlannedRun, *, environment: Mapping[str, str], **_: Any) -> str:
        gpu = environment["CUDA_VISIBLE_DEVICES"]
        with lock:
            under_way.append(gpu)
        two.wait(timeout=60)  # breaks where no other run is under way
        time.sleep(0.2)  # a third one would have begun
        with lock:
            seen.append(set(under_way))
            assert len(under_way) <= 2
        two.wait(timeout=60)
        with lock:
            under_way.remove(gpu)
        return f"trained {run.seed}"

    monkeypatch.setattr(training, "train_run", train_run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "5,7")
    runs = planned_runs(tmp_path, 6)
    results = training.train_all(runs, train=partial(training.train_here, parallel=2))
    assert results == {run.folder: f"trained {run.seed}" for run in runs}
    assert seen == [{"5", "7"}] * 6


def test_what_fails_around_a_run_ends_that_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_run(run: PlannedRun, **_: Any) -> str:
        if run.seed == 0:
            raise OSError("No space left on device")
        return ""

    monkeypatch.setattr(training, "train_run", train_run)
    runs = planned_runs(tmp_path, 2)
    results = training.train_all(runs, train=partial(training.train_here, parallel=1))
    assert results == {runs[0].folder: "No space left on device"}


# What stands for a training: it says that it began, and that SIGTERM let it end.
TRAINING = """
import pathlib, signal, sys, time
folder = pathlib.Path(next(w for w in sys.argv if w.startswith("output_dir=")).partition("=")[2].strip("'"))
folder.mkdir()
def end(*_):
    (folder / "ended").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
(folder / "began").touch()
time.sleep(100)
"""
COMPARISON = """
import os, sys
from functools import partial
from pathlib import Path
from detector.cli import main as cli
from detector.comparing import training
from tests.comparing.planned import planned_runs

def compare(*_):
    runs = planned_runs(Path(sys.argv[2]), 3)
    training.train_all(runs, train=partial(training.train_here, parallel=int(sys.argv[3])))

import detector.cli.jobs
detector.cli.jobs.run_verb = compare
sys.executable = sys.argv[4]
cli.command()
"""


@pytest.mark.parametrize(
    ("number", "parallel"),
    [
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 2, marks=pytest.mark.slow),
    ],
)
def test_signal_to_the_comparison_alone_ends_its_trainings_with_it(
    tmp_path: Path, number: signal.Signals, parallel: int
) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a child of the end of its parent")
    python, runs = tmp_path / "python", tmp_path / "runs"
    (tmp_path / "training.py").write_text(TRAINING)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/training.py "$@"\n')
    python.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", COMPARISON, "compare", str(runs), str(parallel), str(python)],
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(lambda: len(list(runs.glob("*/began"))) == parallel, during=process)
    process.send_signal(number)
    _, output = process.communicate(timeout=60)
    _wait_for(lambda: len(list(runs.glob("*/ended"))) == parallel)
    assert len(list(runs.glob("*/began"))) == parallel, "no other run was begun"
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert "Interrupted. The same command goes on from here." in output


def test_waiting_ends_with_the_process() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(AssertionError, match="ended with 3"):
        _wait_for(lambda: False, during=ended)


def _wait_for(happened: Callable[[], bool], *, during: subprocess.Popen[Any] | None = None) -> None:
    """Until the end of the process at most, and for a minute."""
    deadline = time.monotonic() + 60
    while not happened():
        assert during is None or during.poll() is None, f"it ended with {during.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_finished_run_keeps_no_state_to_resume_from(tmp_path: Path) -> None:
    """A run that ended with all its epochs just before it was marked is only marked."""
    (run,) = planned_runs(tmp_path, 1)
    files = RunFolder(run.folder)
    files.checkpoints.mkdir(parents=True)
    for file in (files.last, files.best):
        file.touch()
    files.write_epochs([{"epoch": 1, "step": 2}])
    files.finished.touch()
    assert training.train_run(run, flags=(), environment={}, watch=lambda _: None) == ""
    assert files.finished.read_text() == "1 epochs\n"
    assert files.best.is_file()
    assert not files.last.exists()
