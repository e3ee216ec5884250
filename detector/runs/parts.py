"""The parts that commands combine, and checks of what they need from this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from detector.checkpoint import Checkpoint
from detector.coco.ground_truth import GroundTruth
from detector.data.datamodule import DetectionDataModule
from detector.data.dataset import CocoDataset
from detector.factory import accepted, weights_in, without_weights
from detector.models.detector import Detector
from detector.option_types import TaskName
from detector.runs.accelerator import find_accelerator
from detector.structures import KeypointSchema
from detector.training.trainer import TrainingOptions


def build_model(
    make: Callable[..., Detector],
    num_classes: int,
    *,
    class_names: Sequence[str] = (),
    keypoint_schemas: Sequence[KeypointSchema | None] = (),
) -> Detector:
    """Build a detector with random or pretrained weights, as its options say.

    If it takes class names, rows of pretrained weights are matched by them; if it takes the keypoint schema
    of each class, it predicts as many keypoints.
    """
    names, schemas = tuple(class_names), tuple(keypoint_schemas)
    known = {name: value for name, value in (("class_names", names), ("keypoint_schemas", schemas)) if value}
    return make(num_classes=num_classes, **accepted(make, **known))


def require_buildable(make: Callable[..., Detector]) -> tuple[TaskName, ...]:
    """Check a model before any data is read: build it without weights, and without storage where possible.

    Returns its tasks.

    Raises:
        ValueError: the parts refuse their options or each other.
    """
    make = without_weights(make)
    try:
        with torch.device("meta"):
            return build_model(make, 1).tasks
    except (NotImplementedError, RuntimeError):  # a user's part may read numbers while it is built
        with torch.random.fork_rng(devices=[]):
            return build_model(make, 1).tasks


def weights_note(models: Iterable[Mapping[str, Any]], data: DetectionDataModule) -> str:
    """Explain what random weights give up on own data; return "" if one of the models starts from others.

    `models` are their configurations. Weights of photographs are no better than random ones for the images
    that the embedded datasets draw.
    """
    models = [*models]
    if not models or any(map(weights_in, models)) or data.is_generated:
        return ""
    if any((model.get("backbone") or {}).get("frozen_stages") for model in models):
        return (
            "model.backbone.frozen_stages keeps the first stages of the model as they are, and they are "
            "random: set it to 0, with model.backbone.norm=batch, or give model.weights"
        )
    return (
        "the model starts from random weights: on a few thousand images, weights trained on COCO take fewer "
        "epochs and reach a higher AP. model=fcos_coco or model=faster_rcnn_coco has them"
    )


def validated_truth(val_set: CocoDataset, config: Mapping[str, Any]) -> GroundTruth:
    """Return the ground truth of the images that a run of this configuration validates.

    With `training.limit_val_batches` these are only the first images.
    """
    limit, devices = config["training"]["limit_val_batches"], config["training"]["devices"]
    if limit is None:
        return val_set.ground_truth()
    batch_size = config["data"]["val_batch_size"]
    return val_set.ground_truth(limit * batch_size * (1 if devices == "auto" else devices))


def require_hardware(options: TrainingOptions) -> None:
    """Raise ValueError if this machine lacks the accelerator, the number of devices, or the precision."""
    kind = find_accelerator(options.accelerator)
    if kind == "cpu" and options.precision == "16-mixed":
        raise ValueError(
            "training.precision=16-mixed needs a GPU, and the run would be on the CPU. "
            "Use bf16-mixed or 32-true."
        )
    count = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": sys.maxsize}[kind]
    if options.devices != "auto" and options.devices > count:
        raise ValueError(f"training.devices={options.devices}: this machine has {count}. Choose auto.")


def require_same_classes(checkpoint: Checkpoint, class_names: tuple[str, ...], *, where: str) -> None:
    """Raise ValueError unless label i means the same in both. Category ids may differ."""
    if checkpoint.class_names == class_names:
        return
    missing = [name for name in checkpoint.class_names if name not in class_names]
    unknown = [name for name in class_names if name not in checkpoint.class_names]
    differences = [
        f"{heading}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}."
        for heading, names in (("Only the checkpoint has", missing), ("Only the data has", unknown))
        if names
    ] or [f"The order by category id differs: {', '.join(checkpoint.class_names)} in the checkpoint."]
    raise ValueError(
        f"{where}: its {len(class_names)} classes are not the {len(checkpoint.class_names)} that "
        f"{checkpoint.path} was trained on. {' '.join(differences)} "
        "Use data with the same categories in the same order."
    )
