"""The options of a training, built from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detector.data.datamodule import DetectionDataModule
from detector.evaluation.coco import CocoEvaluator
from detector.models.detector import Detector
from detector.option_types import NonNegativeInt
from detector.training.optimization import SGD, AdamW
from detector.training.schedules import Cosine, MultiStep
from detector.training.trainer import TrainingOptions


@dataclass(frozen=True)
class TrainOptions:
    """The keys of configs/train.yaml."""

    data: DetectionDataModule
    model: Callable[..., Detector]
    optimizer: SGD | AdamW
    lr_scheduler: Cosine | MultiStep
    training: TrainingOptions
    evaluation: Callable[..., CocoEvaluator]
    seed: NonNegativeInt
    name: str
    output_dir: str
