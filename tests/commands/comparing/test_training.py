"""Training of what was planned, at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import pytest
import torch

from detector.commands.comparing import training
from detector.commands.comparing.plan import PlannedRun
from tests.commands.comparing.planned import planned_runs


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
    found = training.train_all(runs, way=partial(training.train_here, parallel=2))
    assert found == {run.folder: f"trained {run.seed}" for run in runs}
    assert seen == [{"5", "7"}] * 6


def test_what_fails_around_a_run_ends_that_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_run(run: PlannedRun, **_: Any) -> str:
        if run.seed == 0:
            raise OSError("No space left on device")
        return ""

    monkeypatch.setattr(training, "train_run", train_run)
    runs = planned_runs(tmp_path, 2)
    found = training.train_all(runs, way=partial(training.train_here, parallel=1))
    assert found == {runs[0].folder: "No space left on device"}
