"""Broken weights never replace good ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from detector.checkpoint import load_checkpoint
from detector.exceptions import RunError
from detector.models.detector import Detector
from detector.training.callbacks import not_finite
from detector.training.module import DetectionModule
from detector.weights.fit import describe_unusable
from tests.training.tiny import assembled, run_training, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def break_weights(module: DetectionModule) -> None:
    cast(Any, module.model).head.classification_head.cls_logits.bias.data[0] = torch.nan


def break_batch_statistics(module: DetectionModule) -> None:
    cast(Any, module.model).backbone.bn1.running_var[3] = torch.inf


def break_optimizer(module: DetectionModule) -> None:
    state = next(iter(module.trainer.optimizers[0].state.values()))
    state["momentum_buffer"].fill_(torch.nan)


@pytest.mark.parametrize(
    ("breaking", "where"),
    [
        (break_weights, "model.head.classification_head.cls_logits.bias has 1 of 2 values"),
        (break_batch_statistics, "model.backbone.bn1.running_var has 1 of 64 values"),
        (break_optimizer, "optimizer's momentum_buffer"),
    ],
)
def test_all_that_breaks_a_model_is_found(
    dataset: Path, tmp_path: Path, breaking: Callable[[DetectionModule], None], where: str
) -> None:
    trainer, module, _ = assembled(dataset, tmp_path / "run")
    optimizer = cast(Any, module.configure_optimizers())["optimizer"]
    module.trainer, trainer.optimizers = trainer, [optimizer]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # which makes its state
    assert not not_finite(trainer, module)
    breaking(module)
    assert where in describe_unusable(not_finite(trainer, module))


def test_an_epoch_that_breaks_the_model_ends_the_run_and_is_not_kept(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_the_last_batch_of_epoch_2(module: DetectionModule, *arguments: Any) -> None:
        if module.current_epoch == 1 and arguments[-1] == 1:
            break_weights(module)

    monkeypatch.setattr(DetectionModule, "on_train_batch_end", after_the_last_batch_of_epoch_2)
    with pytest.raises(RunError, match="after epoch 2: its last steps broke the model") as caught:
        run_training(dataset, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert "model.head.classification_head.cls_logits.bias has 1 of 2 values" in str(caught.value)
    assert f"{last} is unchanged." in str(caught.value)
    assert "lower optimizer.lr" in str(caught.value)
    assert [load_checkpoint(last.with_name(f"{name}.ckpt")).epoch for name in ("last", "best")] == [1, 1]


def test_an_epoch_whose_validation_is_not_finite_is_not_kept(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both = Detector.loss_and_predict
    validated = []

    def broken_from_epoch_2_on(model: Detector, batch: Any) -> Any:
        losses, detections = both(model, batch)
        validated.append(len(batch.indices))
        factor = torch.inf if sum(validated) > 6 else 1.0
        return {name: value * factor for name, value in losses.items()}, detections

    monkeypatch.setattr(Detector, "loss_and_predict", broken_from_epoch_2_on)
    run = run_training(dataset, tmp_path / "run")
    assert "Epoch 2 is not saved" in caplog.text
    for name in ("last", "best"):
        assert load_checkpoint(run / "checkpoints" / f"{name}.ckpt").epoch == 1
    assert (run / "report.html").is_file()
