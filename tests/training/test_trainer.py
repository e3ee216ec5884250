"""What Lightning's trainer does by the options of a training, on a module without a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detector.evaluation.metrics import MONITORED
from detector.training.trainer import TrainingOptions, build_trainer


class Slope(LightningModule):
    """Four weights, each with a gradient of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.validated_epochs: list[int] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated_epochs.append(self.current_epoch + 1)

    def configure_optimizers(self) -> torch.optim.SGD:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fitted(folder: Path, *, batches: int = 1, **options: Any) -> tuple[Trainer, Slope]:
    module = Slope()
    trainer = build_trainer(
        TrainingOptions(accelerator="cpu", **options), monitored=MONITORED, output_dir=folder, callbacks=[]
    )
    trainer.fit(module, DataLoader(torch.zeros(batches, 1)), DataLoader(torch.zeros(1, 1)))  # type: ignore[arg-type]  # a tensor is a dataset to torch
    return trainer, module


def test_last_epoch_is_validated_whatever_the_interval(tmp_path: Path) -> None:
    _, module = fitted(tmp_path, max_epochs=3, check_val_every_n_epoch=2)
    assert module.validated_epochs == [2, 3]


def test_batches_that_accumulate_make_one_step(tmp_path: Path) -> None:
    trainer, _ = fitted(tmp_path, max_epochs=2, batches=4, accumulate_grad_batches=2)
    assert trainer.global_step == 4


@pytest.mark.parametrize(("norm", "moved"), [(0.5, 0.5), (10.0, 2.0), (None, 2.0)])
def test_gradients_are_clipped_by_their_norm(tmp_path: Path, norm: float | None, moved: float) -> None:
    _, module = fitted(tmp_path, max_epochs=1, gradient_clip_val=norm)
    assert module.weight.detach().norm().item() == pytest.approx(moved, rel=1e-4)
