"""From a configuration, or from a checkpoint's, to the parts that commands put together."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any, Literal, cast

import torch
import yaml
from omegaconf import DictConfig

from detector.checkpoint import Checkpoint
from detector.coco.ground_truth import of_images
from detector.config.build import build
from detector.config.plain import resolved
from detector.data.datamodule import DetectionDataModule
from detector.data.dataset import CocoDataset
from detector.models.detector import Detector
from detector.profiling.activations import activation_bytes
from detector.profiling.flops import count_flops
from detector.reports.comparison import ModelSize
from detector.training.trainer import TrainingOptions

Config = DictConfig | dict[str, Any]


def build_data(cfg: Config) -> DetectionDataModule:
    """The data module of `cfg.data`; nothing is read yet."""
    return cast(DetectionDataModule, build(cfg["data"]))


def build_model(cfg: Config, num_classes: int, *, class_names: Sequence[str] = ()) -> Detector:
    """The detector of `cfg.model`, with fresh or pretrained weights as it says. Where it takes the names of
    its classes, rows of pretrained weights are matched with them."""
    make = build(cfg["model"])
    takes_names = "class_names" in inspect.signature(make).parameters  # a detector of the user's may not
    named = {"class_names": tuple(class_names)} if class_names and takes_names else {}
    return cast(Detector, make(num_classes=num_classes, **named))


def validated_truth(val_set: CocoDataset, config: Mapping[str, Any]) -> dict[str, Any]:
    """The ground truth of the images that a run of this configuration validates: the first ones, where
    `training.limit_val_batches` says so."""
    truth, limit = val_set.ground_truth(), config["training"]["limit_val_batches"]
    if limit is None:
        return truth
    devices = config["training"]["devices"]
    count = limit * config["data"]["val_batch_size"] * (1 if devices == "auto" else devices)
    return of_images(truth, {val_set.image_id(index) for index in range(min(count, len(val_set)))})


def find_accelerator(name: str) -> Literal["cuda", "mps", "cpu"]:
    """The accelerator that `name` (auto, gpu, mps or cpu) means on this machine; ValueError where it has
    none."""
    wanted: dict[str, tuple[Literal["cuda", "mps", "cpu"], ...]] = {
        "auto": ("cuda", "mps", "cpu"),
        "gpu": ("cuda", "mps"),
        "mps": ("mps",),
        "cpu": ("cpu",),
    }
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    for kind in wanted[name]:
        if present[kind]:
            return kind
    raise ValueError(f"accelerator={name}: this machine has none that torch can use. Choose auto or cpu.")


def require_hardware(options: TrainingOptions) -> None:
    """Raise ValueError where this machine lacks the accelerator, so many devices, or the precision."""
    kind = find_accelerator(options.accelerator)
    if kind == "cpu" and options.precision == "16-mixed":
        raise ValueError(
            "training.precision=16-mixed needs a GPU, and the run would be on the CPU. "
            "Use bf16-mixed or 32-true."
        )
    count = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": sys.maxsize}[kind]
    if options.devices != "auto" and options.devices > count:
        raise ValueError(f"training.devices={options.devices}: this machine has {count}. Choose auto.")


def require_buildable(cfg: DictConfig) -> None:
    """Raise ValueError for a model or recipe that its parts refuse, before any data is read."""
    build(cfg.optimizer)
    build(cfg.schedule)
    build_untrained(cfg, num_classes=1)


def build_untrained(cfg: Config, num_classes: int) -> Detector:
    """The detector of `cfg.model` without the weights that it names."""
    without_weights = deepcopy(cfg)
    without_weights["model"]["weights"] = None
    without_weights["model"]["backbone"]["weights"] = None
    return build_model(without_weights, num_classes)


def model_size(cfg: Config, num_classes: int) -> ModelSize:
    """Of the detector of `cfg.model`, for an image of `cfg.data`."""
    config = resolved(cfg) if isinstance(cfg, DictConfig) else cfg
    shorter, longer = (config["data"]["image_size"][side] for side in ("shorter", "longer"))
    shorter = shorter if isinstance(shorter, int) else max(shorter)  # of several, which training draws from
    return _model_size(yaml.safe_dump(config["model"]), num_classes, (shorter, longer))


@cache
def _model_size(model_config: str, num_classes: int, image_size: tuple[int, int]) -> ModelSize:
    """Points of a comparison share their models: a training step takes seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what is kept depends on the regions that a model proposes
        model = build_untrained({"model": yaml.safe_load(model_config)}, num_classes)
    flops = count_flops(model, image_size=image_size)
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        matrix_flops=flops.matrix,
        sampling_flops=flops.sampling,
        activation_bytes=activation_bytes(model, image_size=image_size),
    )


def require_same_classes(checkpoint: Checkpoint, class_names: tuple[str, ...], *, where: str) -> None:
    """Raise ValueError unless label i means the same in both. Category ids may differ."""
    if checkpoint.class_names == class_names:
        return
    missing = [name for name in checkpoint.class_names if name not in class_names]
    unknown = [name for name in class_names if name not in checkpoint.class_names]
    differences = [
        f"{what}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}."
        for what, names in (("Only the checkpoint has", missing), ("Only the data has", unknown))
        if names
    ] or [f"The order by category id differs: {', '.join(checkpoint.class_names)} in the checkpoint."]
    raise ValueError(
        f"{where}: its {len(class_names)} classes are not the {len(checkpoint.class_names)} that "
        f"{checkpoint.path} was trained on. {' '.join(differences)} "
        "Use data with the same categories in the same order."
    )
