"""The metric that decides which epoch is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from detector.evaluation.metrics import COCO_METRICS, Metrics, MetricSpec
from detector.training.callbacks import Checkpoints
from detector.training.trainer import TrainingOptions, build_trainer

MISSED = MetricSpec("Missed", "missed", higher_is_better=False)


def test_the_best_epoch_has_the_least_value_if_less_is_better(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, MISSED)
    missed = (-1.0, 0.5, 0.4, 0.6, -1.0)
    validations = [Metrics({"AP": 0.1 * epoch, "Missed": m}, {}) for epoch, m in enumerate(missed)]
    taken = [checkpoints.take_best(metrics, epoch=n) for n, metrics in enumerate(validations, start=1)]
    assert taken == [True, True, True, False, False]
    assert (checkpoints.best_value, checkpoints.best_epoch) == (0.4, 3)


def test_a_best_value_of_another_metric_does_not_count_after_a_resume(tmp_path: Path) -> None:
    state = {"best_ap": 0.3, "best_epoch": 2}  # as runs wrote it that knew AP alone
    for spec, expected in ((MISSED, None), (COCO_METRICS[0], 0.3)):
        checkpoints = Checkpoints(tmp_path, spec)
        checkpoints.best.parent.mkdir(exist_ok=True)
        checkpoints.best.touch()
        checkpoints.load_state_dict(state)
        assert checkpoints.best_value == expected
    again = Checkpoints(tmp_path, COCO_METRICS[0])
    again.load_state_dict(checkpoints.state_dict())
    assert (again.best_value, again.best_epoch) == (0.3, 2)


def test_a_run_stops_early_by_its_monitor(tmp_path: Path) -> None:
    options = TrainingOptions(max_epochs=3, accelerator="cpu", monitor="Missed", early_stopping_patience=2)
    monitored = options.monitored([*COCO_METRICS, MISSED])
    trainer = build_trainer(options, monitored=monitored, output_dir=tmp_path, callbacks=[])
    (stopping,) = (c for c in cast(Any, trainer).callbacks if isinstance(c, EarlyStopping))
    assert (stopping.monitor, stopping.mode) == ("val/Missed", "min")


def test_a_monitor_that_is_no_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.monitor=mAP: expected one of AP, AP50, .*, Missed\."):
        TrainingOptions(max_epochs=1, monitor="mAP").monitored([*COCO_METRICS, MISSED])
