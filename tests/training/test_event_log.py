"""Curves for TensorBoard."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.training.event_log import TensorBoard, read_events


def test_curves_are_readable_at_once_and_no_thread_writes_them(tmp_path: Path) -> None:
    before = threading.active_count()
    log = TensorBoard(tmp_path / "tensorboard")
    log.log_metrics({"train/loss": 1.5, "train/lr": 0.1}, step=1)
    log.log_metrics({"train/loss": 0.5}, step=2)
    assert threading.active_count() == before
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.5), (2, 0.5)]
    assert [e.step for e in events.Scalars("train/lr")] == [1]
    log.finalize("success")


def test_curves_are_read_again_and_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path: Path) -> None:
    for process, steps in (("1", (0, 1, 2, 3)), ("2", (2, 3, 4))):
        log = TensorBoard(tmp_path)
        for step in steps:
            log.log_metrics({"train/loss": float(f"{process}{step}")}, step=step)
        log.finalize("success")
        for file in tmp_path.glob("events.out.tfevents.*"):
            if not file.name.endswith(".run"):
                file.rename(file.with_name(f"events.out.tfevents.{process}.run"))
    assert read_events(tmp_path) == {"train/loss": ([1, 2, 3, 4, 5], [10.0, 11.0, 22.0, 23.0, 24.0])}
    assert read_events(tmp_path / "none") == {}


def test_a_log_that_cannot_be_written_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    log = TensorBoard(tmp_path / "tensorboard")
    log.log_metrics({"train/loss": 1.5}, step=1)
    log.log_metrics({"train/loss": 1.5}, step=2)
    log.finalize("success")
    assert len(caplog.records) == 1
    assert str(tmp_path / "tensorboard") in caplog.text
    assert "Training goes on" in caplog.text
