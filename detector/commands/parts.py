"""From a configuration, or from a checkpoint's, to the parts that commands put together."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from omegaconf import DictConfig

from detector.config import build
from detector.data import DetectionDataModule
from detector.models import Detector
from detector.training import Checkpoint

Config = DictConfig | dict[str, Any]


def build_data(cfg: Config) -> DetectionDataModule:
    """The data module of `cfg.data`; nothing is read yet."""
    return cast(DetectionDataModule, build(cfg["data"]))


def build_model(cfg: Config, num_classes: int) -> Detector:
    """The detector of `cfg.model`, with fresh or pretrained weights as it says."""
    return cast(Detector, build(cfg["model"])(num_classes=num_classes))


def require_accelerator(name: str) -> None:
    """Raise ValueError where this machine has no such accelerator."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (name == "gpu" and not (cuda or mps)) or (name == "mps" and not mps):
        raise ValueError(f"accelerator={name}: this machine has none that torch can use. Choose auto or cpu.")


def require_buildable(cfg: DictConfig) -> None:
    """Raise ValueError for a model or recipe that its parts refuse, before any data is read."""
    build(cfg.optimizer)
    build(cfg.schedule)
    without_weights = deepcopy(cfg)
    without_weights.model.backbone.weights = None
    build_model(without_weights, num_classes=1)


def restore_model(checkpoint: Checkpoint) -> Detector:
    """The detector of a checkpoint with its weights, in evaluation mode. Needs no pretrained file."""
    config = deepcopy(checkpoint.config)
    config["model"]["backbone"]["weights"] = None
    model = build_model(config, len(checkpoint.class_names))
    model.load_state_dict(checkpoint.state_dict)
    return model.eval()
