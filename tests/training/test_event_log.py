"""Curves for TensorBoard."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.training.event_log import TensorBoard


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
