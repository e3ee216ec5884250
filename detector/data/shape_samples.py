"""The shapes of a split's samples: read, and augmented with the image and its boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.coco.annotations import CocoAnnotations
from detector.data.keypoint_schemas import keypoint_schemas
from detector.data.shape_augmentation import ShapeAugmentation
from detector.data.shapes import ShapeReader, Shapes
from detector.data.transforms import Augmentation
from detector.structures import KeypointSchema


class ShapeSamples:
    """The shapes of `annotations`; without `schemas`, those of its categories by default."""

    def __init__(
        self,
        annotations: CocoAnnotations,
        schemas: Sequence[KeypointSchema | None],
        augmentation: Augmentation | None,
        boxes_from_masks: bool,
    ) -> None:
        self._reader = ShapeReader(annotations, schemas or keypoint_schemas(annotations.categories))
        self._augment = None
        if augmentation is not None:
            self._augment = ShapeAugmentation(augmentation, self._reader, boxes_from_masks=boxes_from_masks)

    def augmented(
        self, index: int, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, *, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Shapes]:
        """Return image `index` with its boxes, labels and shapes, augmented if there is an augmentation."""
        shapes = self._reader.of_image(index)
        if self._augment is None:
            return image, boxes, labels, shapes
        return self._augment(image, boxes, labels, shapes, seed=seed)
