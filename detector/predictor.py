"""Inference on images with a trained detector."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.coco.image_files import find_images
from detector.coco.images import ReadOptions, read_image
from detector.config.build import build
from detector.config.recorded import check_stored
from detector.data.collate import collate
from detector.data.dataset import Sample
from detector.data.transforms import ImageSize, resize
from detector.factory import accepted, without_weights
from detector.layers.deform import replace_backends
from detector.models.detector import Detector
from detector.option_types import PositiveInt, ScoreThreshold
from detector.structures import Batch, Detections
from detector.weights.fit import unusable

_log = logging.getLogger(__name__)

ImageInput = np.ndarray | Tensor | Image.Image | str | os.PathLike[str]
USUAL_SCORE_THRESHOLD = 0.3  # where a checkpoint has none of its own
_SHOWN = 5  # class names in the text of a predictor


class Predictor:
    """A trained detector that uses the image preparation, precision and memory layout of its training.

    `checkpoint` is the file that `detector train` wrote. Its `best_f1_threshold` is the score from which
    detections had the best F1 in validation, or None; `score_threshold="auto"` takes it, or 0.3 for None.

    Examples:
        >>> predictor = Predictor("path/to/best.ckpt")
        >>> for box, score, label, name in predictor("image.jpg"):
        ...     print(name, score, box)
        >>> predictor("image.jpg").show()

    Raises:
        ValueError: the file is missing, is no such checkpoint, or has inconsistent entries.
    """

    def __init__(
        self, checkpoint: Checkpoint | str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> None:
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint)
        check_used(checkpoint.config, source=str(checkpoint.path))
        self.class_names = checkpoint.class_names
        self.category_ids = checkpoint.category_ids
        self.keypoint_schemas = checkpoint.keypoint_schemas  # of each class, None for one without; or ()
        self.best_f1_threshold = checkpoint.best_f1_threshold
        self.image_size = cast(ImageSize, build(checkpoint.config["data"]["image_size"]))
        self.reading = _reading(checkpoint.config["data"])  # how image files are read; may be replaced
        self.device = torch.device(device)
        training = checkpoint.config.get("training", {})
        self._layout = torch.channels_last if training.get("channels_last", True) else torch.contiguous_format
        self._dtype = _autocast_dtype(training.get("precision", "32-true"), self.device)
        self.model = restore_model(checkpoint, device=self.device).to(memory_format=self._layout)

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:_SHOWN]) + (", ..." if len(self.class_names) > _SHOWN else "")
        return f"Predictor({len(self.class_names)} classes: {names}; on {self.device})"

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> Predictor:
        """Do what `Predictor(path)` does; the method goes with the next version."""
        text = "Predictor.from_checkpoint(path) is Predictor(path) now; it goes with the next version."
        warnings.warn(text, FutureWarning, stacklevel=2)
        return cls(path, device=device)

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        score_threshold: ScoreThreshold = "auto",
        batch_size: PositiveInt = 4,
    ) -> Detections | list[Detections]:
        """Return the detections in one image as `predict` does, or a list of them for many.

        Many images are a list, a tensor (batch, 3, height, width), a folder, a glob such as "photos/*.jpg",
        or a text file with a path a line; `batch_size` of them are processed at a time. Each result has its
        `path` if the image is a file.
        """
        many = _several(images)
        if many is None:
            return self.predict(cast(ImageInput, images), score_threshold=score_threshold)
        starts = range(0, len(many), batch_size)
        chunks = (many[start : start + batch_size] for start in starts)
        return [one for chunk in chunks for one in self.predict_batch(chunk, score_threshold=score_threshold)]

    def predict(self, image: ImageInput, *, score_threshold: ScoreThreshold = "auto") -> Detections:
        """Return detections with at least this score, in pixels of the image, best first, on the CPU.

        `image`: the path of a file (rotated to its EXIF orientation), a PIL image, a uint8 RGB array (height,
        width, 3), or a tensor (3, height, width) of uint8 in RGB or of floats in [0, 1].

        Raises:
            ValueError: the array has another shape or dtype; the file is missing, truncated or not an image;
                the threshold is outside [0, 1].
        """
        (detections,) = self.predict_batch([image], score_threshold=score_threshold)
        return detections

    def predict_batch(
        self, images: Sequence[ImageInput], *, score_threshold: ScoreThreshold = "auto"
    ) -> list[Detections]:
        """Run `predict` on several images of any sizes in one pass."""
        threshold = self.lowest_score(score_threshold)
        if not images:
            return []
        batch = self.batch([load_image(image, self.reading) for image in images])
        detected = self.detect(batch)
        sizes = zip(batch.image_sizes.tolist(), batch.original_sizes.tolist(), strict=True)
        return [
            replace(
                detections.select(detections.scores >= threshold)
                .resized(from_size=tuple(resized), to_size=tuple(original))
                .to("cpu"),
                class_names=self.class_names,
                keypoint_schemas=self.keypoint_schemas,
                image_size=tuple(original),
                path=Path(image) if isinstance(image, str | os.PathLike) else None,
                read_image=partial(load_image, image, self.reading),
            )
            for image, detections, (resized, original) in zip(images, detected, sizes, strict=True)
        ]

    def lowest_score(self, score_threshold: ScoreThreshold) -> float:
        """Return the number that a threshold stands for.

        Raises:
            ValueError: it is neither "auto" nor in [0, 1].
        """
        if score_threshold == "auto":
            return USUAL_SCORE_THRESHOLD if self.best_f1_threshold is None else self.best_f1_threshold
        if not (isinstance(score_threshold, Real) and 0 <= score_threshold <= 1):
            raise ValueError(f"score_threshold = {score_threshold}: expected a number >= 0 and <= 1 or auto.")
        return float(score_threshold)

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


def _several(images: ImageInput | Sequence[ImageInput]) -> Sequence[ImageInput] | None:
    """Return the images of a list, a batch or a source of files; None for a single image."""
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        is_one = path.is_file() and path.suffix.lower() != ".txt"
        return None if is_one else find_images(str(images)).files
    if isinstance(images, Tensor | np.ndarray):
        return list(images) if images.ndim == 4 else None
    return None if isinstance(images, Image.Image) else [*images]


def load_image(image: ImageInput, reading: ReadOptions = ReadOptions()) -> np.ndarray:  # noqa: B008 (frozen)
    """Return an image, or the one in a file, as uint8 RGB (height, width, 3).

    Raises:
        ValueError: the image has another shape, dtype or range than `Predictor.predict` takes.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image), declared_size=None, options=reading)
    if isinstance(image, Image.Image):
        if image.mode == "F" or image.mode.startswith("I"):
            raise ValueError(
                f"expected a PIL image of 8 bits, got the mode {image.mode}. Pass the path of its file: such "
                "files are read as in training."
            )
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, Tensor):
        image = _array_of(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"expected an image as uint8 RGB of shape (height, width, 3), got {image.dtype} of shape "
            f"{image.shape}."
        )
    return image


def _array_of(image: Tensor) -> np.ndarray:
    """Return a tensor (3, height, width) as an array (height, width, 3)."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(
            f"expected an image as a tensor of shape (3, height, width), got {tuple(image.shape)}."
        )
    if image.is_floating_point():
        low, high = image.aminmax() if image.numel() else (0.0, 1.0)
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"expected an image as floats in [0, 1], got {low:g} to {high:g}. Leave out the "
                "normalization, which the model does, or pass uint8."
            )
        image = (image * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).contiguous().cpu().numpy()


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
        make = without_weights(build(checkpoint.config["model"]))
        schemas = accepted(make, keypoint_schemas=checkpoint.keypoint_schemas)
        model = make(num_classes=len(checkpoint.class_names), **schemas)
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
