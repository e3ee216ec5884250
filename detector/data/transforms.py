"""The transforms of an image and its boxes before batching: augmentation, then one resize."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from detector.coco.rules import MIN_BOX_SIDE_PX
from detector.option_types import PositiveInt

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import checks online for updates


@dataclass(frozen=True)
class ImageSize:
    """The size that images are resized to, keeping their aspect ratio.

    The shorter side becomes `min_size` unless the longer side would exceed `max_size`:
    `min_size=240, max_size=320` fits into 240 x 320. If `min_size` has several values, training draws one at
    random and evaluation uses the last.
    """

    min_size: PositiveInt | tuple[PositiveInt, ...]
    max_size: PositiveInt

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("image_size.min_size is empty. Give a side in pixels, or several.")
        if max(self.choices) > self.max_size:
            raise ValueError(
                f"image_size.min_size={self.min_size} exceeds image_size.max_size={self.max_size}. "
                "Correct one."
            )

    @property
    def choices(self) -> tuple[int, ...]:
        return (self.min_size,) if isinstance(self.min_size, int) else tuple(self.min_size)

    def fit(self, size: tuple[int, int], *, min_size: int | None = None) -> tuple[int, int]:
        """Return the resized (height, width) of an image of `size`; `min_size`: the last choice."""
        height, width = size
        min_size = self.choices[-1] if min_size is None else min_size
        scale = min(min_size / min(height, width), self.max_size / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: np.ndarray, boxes: np.ndarray, *, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image (bilinear) and its xyxy boxes to (height, width). Boxes scale by the size ratio."""
    (h0, w0), (h1, w1) = image.shape[:2], size
    if (h0, w0) == (h1, w1):
        return image, boxes
    ratio = np.array([w1 / w0, h1 / h0, w1 / w0, h1 / h0])
    return cv2.resize(image, (w1, h1), interpolation=cv2.INTER_LINEAR), boxes * ratio


def drop_thin_boxes(boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop boxes thinner than `MIN_BOX_SIDE_PX`, which clipping leaves of boxes that touch the border."""
    keep = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_BOX_SIDE_PX).all(1)
    return boxes[keep], labels[keep]


class Augmentation:
    """A sequence of albumentations transforms, applied in order and drawn from the seed alone.

    `transforms` is one of them, a list, or a mapping with the names for messages.

    Boxes go in and come out as xyxy in pixels inside the image. A box that keeps less than a tenth of its
    area in a crop is dropped with its label.
    """

    min_visible_fraction = 0.1

    def __init__(self, transforms: Mapping[str, Any] | Sequence[Any] | Any) -> None:
        import albumentations

        kinds = albumentations.BasicTransform | albumentations.BaseCompose
        if isinstance(transforms, kinds):
            transforms = [transforms]
        if not isinstance(transforms, Mapping):
            transforms = {f"{type(one).__name__} ({i})": one for i, one in enumerate(transforms)}
        self.names = list(transforms)
        for name, transform in transforms.items():
            if not isinstance(transform, kinds):
                raise ValueError(
                    f"data.augmentation.{name} is a {type(transform).__name__}, expected an albumentations "
                    "transform."
                )
        self.transforms = list(transforms.values())
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Got processor for bboxes"
            )  # color transforms alone do not move boxes
            self._compose = albumentations.Compose(self.transforms, bbox_params=self.box_params())

    def box_params(self) -> Any:
        """Return how albumentations is to move the boxes, with their positions as "rows"."""
        import albumentations

        return albumentations.BboxParams(
            format="pascal_voc", label_fields=["rows"], clip=True, min_visibility=self.min_visible_fraction
        )

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, *, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._compose.set_random_seed(seed)
        augmented, boxes, rows = self.checked(
            self._compose(image=image, bboxes=boxes, rows=np.arange(len(boxes)))
        )
        return augmented, boxes, labels[rows]

    def checked(self, result: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the image, the boxes and their positions before; ValueError if it is no image of 8 bits."""
        augmented = result["image"]
        if (
            not isinstance(augmented, np.ndarray)
            or augmented.dtype != np.uint8
            or augmented.shape[2:] != (3,)
        ):
            actual = (
                f"{getattr(augmented, 'dtype', type(augmented).__name__)} of shape {tuple(augmented.shape)}"
            )
            raise ValueError(
                f"data.augmentation ({', '.join(self.names)}) gives {actual}, expected uint8 (height, width,"
                " 3). Leave out transforms that normalize or make tensors: the model does that."
            )
        kept_boxes = np.asarray(result["bboxes"], dtype=np.float64).reshape(-1, 4)
        return augmented, kept_boxes, np.asarray(result["rows"], dtype=np.int64)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Hash (seed, epoch, image index) to 32 bits, the same in every worker and different between triples."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])
