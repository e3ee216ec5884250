"""Configurations stored in checkpoints, which may be of another version or of somebody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from detector.config.check import check
from detector.config.errors import ConfigError
from detector.data import DetectionDataModule
from detector.models import Detector


@dataclass(frozen=True)
class Precision:
    """The options of a training that its model is used with, and their defaults."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = True


@dataclass(frozen=True)
class _Stored:
    """The parts of a stored configuration that the use of a checkpoint needs."""

    model: Callable[..., Detector]
    data: DetectionDataModule
    training: Precision


def check_stored(config: Mapping[str, Any], *, source: str) -> None:
    """Raise ConfigError, which begins with `source`, where no model or data can be built from it."""
    parts = {name: config[name] for name in ("model", "data") if name in config}
    training = config.get("training", {})
    if isinstance(training, Mapping):
        training = {k: training[k] for k in ("precision", "channels_last") if k in training}
    try:
        check({**parts, "training": training}, _Stored)
    except ConfigError as error:
        problems = "; ".join(problem.rstrip(".") for problem in error.problems[:5])
        more = f"; and {len(error.problems) - 5} more" if len(error.problems) > 5 else ""
        raise ConfigError(
            [
                f"{source}: its configuration is not one of this version of detector: {problems}{more}. "
                "Use the version that wrote it, or another checkpoint"
            ]
        ) from error
