"""From a configuration, or from a checkpoint's, to the parts that commands put together."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

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


def restore_model(checkpoint: Checkpoint) -> Detector:
    """The detector of a checkpoint with its weights, in evaluation mode. Needs no pretrained file."""
    config = deepcopy(checkpoint.config)
    config["model"]["backbone"]["weights"] = None
    model = build_model(config, len(checkpoint.class_names))
    model.load_state_dict(checkpoint.state_dict)
    return model.eval()
