"""Inference on images with a trained detector."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.coco.images import ReadOptions, read_image
from detector.config.build import build
from detector.config.recorded import check_stored
from detector.data.collate import collate
from detector.data.dataset import Sample
from detector.data.transforms import ImageSize, resize
from detector.factory import without_weights
from detector.layers.deform import replace_backends
from detector.models.detector import Detector
from detector.option_types import PositiveInt
from detector.structures import Batch, Detections
from detector.weights.fit import unusable

_log = logging.getLogger(__name__)

ImageInput = np.ndarray | str | os.PathLike[str]


class Predictor:
    """A trained detector that uses the image preparation, precision and memory layout of its training.

    Examples:
        >>> predictor = Predictor.from_checkpoint("path/to/best.ckpt")
        >>> detections = predictor.predict("image.jpg")
        >>> names = [predictor.class_names[label] for label in detections.labels]
    """

    def __init__(self, checkpoint: Checkpoint, *, device: torch.device | str = "cpu") -> None:
        check_used(checkpoint.config, source=str(checkpoint.path))
        self.class_names = checkpoint.class_names
        self.category_ids = checkpoint.category_ids
        self.image_size = cast(ImageSize, build(checkpoint.config["data"]["image_size"]))
        self.reading = _reading(checkpoint.config["data"])  # how image files are read; may be replaced
        self.device = torch.device(device)
        training = checkpoint.config.get("training", {})
        self._layout = torch.channels_last if training.get("channels_last", True) else torch.contiguous_format
        self._dtype = _autocast_dtype(training.get("precision", "32-true"), self.device)
        self.model = restore_model(checkpoint, device=self.device).to(memory_format=self._layout)

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> Predictor:
        """Load the detector from a checkpoint of `detector train`.

        Raises:
            ValueError: the file is missing, is no such checkpoint, or has inconsistent entries.
        """
        return cls(load_checkpoint(path), device=device)

    def predict(self, image: ImageInput, *, score_threshold: float = 0.3) -> Detections:
        """Return detections with at least this score, in pixels of the image, best first, on the CPU.

        `image`: uint8 RGB (height, width, 3), or the path of a file (rotated to its EXIF orientation).

        Raises:
            ValueError: the array has another shape or dtype; the file is missing, truncated or not an image;
                the threshold is outside [0, 1].
        """
        (detections,) = self.predict_batch([load_image(image, self.reading)], score_threshold=score_threshold)
        return detections

    def predict_batch(
        self, images: Sequence[np.ndarray], *, score_threshold: float = 0.3
    ) -> list[Detections]:
        """Run `predict` on several images of any sizes in one pass."""
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold = {score_threshold}: expected a number >= 0 and <= 1.")
        if not images:
            return []
        batch = self.batch(images)
        detected = self.detect(batch)
        sizes = zip(batch.image_sizes.tolist(), batch.original_sizes.tolist(), strict=True)
        return [
            detections.select(detections.scores >= score_threshold)
            .resized(from_size=tuple(resized), to_size=tuple(original))
            .to("cpu")
            for detections, (resized, original) in zip(detected, sizes, strict=True)
        ]

    def batch(self, images: Sequence[np.ndarray]) -> Batch:
        """Return the images as model input: resized, padded to one size, on the model's device."""
        return self.prepared(collate([self._sample(image) for image in images]))

    def prepared(self, batch: Batch) -> Batch:
        """Move a batch to the device, in the memory layout of the model."""
        batch = batch.to(self.device)
        return replace(batch, images=batch.images.contiguous(memory_format=self._layout))

    def detect(self, batch: Batch) -> list[Detections]:
        """Return the detections of each image of a prepared batch, in pixels of the resized image."""
        autocast = torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None)
        with torch.inference_mode(), autocast:
            return self.model.predict(batch)

    def _sample(self, image: np.ndarray) -> Sample:
        height, width = image.shape[:2]
        boxes = np.zeros((0, 4))
        resized, _ = resize(image, boxes, size=self.image_size.fit((height, width)))
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))),
            boxes=torch.zeros(0, 4),
            labels=torch.zeros(0, dtype=torch.int64),
            original_size=(height, width),
            index=0,
        )


@dataclass(frozen=True)
class Precision:
    """The training options that prediction needs, with their defaults."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = True


@dataclass(frozen=True)
class Reading:
    """The data options of a training that prediction needs, with their defaults."""

    image_size: ImageSize
    image_range: Literal["full", "auto"] | tuple[float, float] = "full"
    max_image_pixels: PositiveInt = ReadOptions().max_pixels


@dataclass(frozen=True)
class _Used:
    """The parts of a stored configuration that prediction needs."""

    model: Callable[..., Detector]
    data: Reading
    training: Precision


def check_used(config: Mapping[str, Any], *, source: str) -> None:
    """Raise ConfigError, starting with `source`, if prediction is impossible with a stored configuration."""
    parts = {"model": config["model"]} if "model" in config else {}
    if "data" in config:
        parts["data"] = _chosen(config["data"], Reading)
    check_stored({**parts, "training": _chosen(config.get("training", {}), Precision)}, _Used, source=source)


def _chosen(options: Any, kind: type) -> Any:
    """Return the options that are fields of `kind`; anything but a mapping is returned as it is."""
    if not isinstance(options, Mapping):
        return options
    return {field.name: options[field.name] for field in fields(kind) if field.name in options}


def load_image(image: ImageInput, reading: ReadOptions = ReadOptions()) -> np.ndarray:  # noqa: B008 (frozen)
    """Return uint8 RGB (height, width, 3) from such an array or a file, else raise ValueError."""
    if not isinstance(image, np.ndarray):
        return read_image(Path(image), declared_size=None, options=reading)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"expected an image as uint8 RGB of shape (height, width, 3), got {image.dtype} of shape "
            f"{image.shape}."
        )
    return image


def _reading(data: Mapping[str, Any]) -> ReadOptions:
    """Return how the training read its images; checkpoints older than these options get the defaults."""
    default = ReadOptions()
    image_range = data.get("image_range", "full")
    return ReadOptions(
        (float(image_range[0]), float(image_range[1])) if not isinstance(image_range, str) else "full",
        data.get("max_image_pixels", default.max_pixels),
    )


def restore_model(checkpoint: Checkpoint, *, device: torch.device) -> Detector:
    """Return the model of a checkpoint with its weights on `device`, in evaluation mode.

    No pretrained file is needed. A deformable convolution backend that cannot run on `device` is replaced.

    Raises:
        ValueError: the configuration does not build a detector, or the weights do not match it.
    """
    try:
        model = without_weights(build(checkpoint.config["model"]))(num_classes=len(checkpoint.class_names))
    except (AttributeError, KeyError, TypeError) as error:  # incompatible parts
        raise ValueError(
            f"{checkpoint.path}: its configuration builds no detector ({error}). Use another checkpoint."
        ) from error
    _require_matching_weights(model, checkpoint)
    model.load_state_dict(checkpoint.state_dict)
    if replaced := replace_backends(model, device=device):
        _log.warning("backend=auto in %d layers: the one of the training cannot run on %s.", replaced, device)
    return model.eval().to(device)


def _require_matching_weights(model: object, checkpoint: Checkpoint) -> None:
    """Raise ValueError unless the checkpoint's state dict has the names and shapes of `model`."""
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{checkpoint.path}: its configuration builds a {type(model).__name__}, no detector. Use another "
            "checkpoint."
        )
    expected, state = model.state_dict(), checkpoint.state_dict
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in expected]
    problems += [
        f"{name} has the shape {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    problems += [f"{name} {problem}" for name, problem in unusable(state, expected).items()]
    if problems:
        raise ValueError(
            f"{checkpoint.path}: its weights are not those of the model of its configuration with "
            f"{len(checkpoint.class_names)} classes: {len(problems)} of {len(expected)} entries do not fit: "
            f"{', '.join(problems[:3])}{', ...' if len(problems) > 3 else ''}. Use another checkpoint."
        )


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast dtype for a training precision; CPUs have no float16 and use float32."""
    if precision == "16-mixed" and device.type == "cpu":
        return None
    return {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}[precision]
