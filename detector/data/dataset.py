"""A split as a map-style dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from detector.coco.annotations import CocoAnnotations
from detector.coco.ground_truth import GroundTruth
from detector.coco.images import ImageFileError, ReadOptions, read_image
from detector.data.transforms import Augmentation, ImageSize, drop_thin_boxes, resize, sample_seed
from detector.option_types import PositiveInt
from detector.structures import Keypoints, KeypointSchema

# H, W size of the resized image, G ground-truth boxes, S cells of a mask's side


@dataclass(frozen=True)
class Sample:
    """A resized image, not padded, with its boxes: xyxy inside it, x1 < x2 and y1 < y2, without crowds.

    Masks, in the frames of their boxes, and keypoints are None if the annotations were read without them.
    """

    image: UInt8[Tensor, "3 H W"]
    boxes: Float[Tensor, "G 4"]
    labels: Int64[Tensor, " G"]
    original_size: tuple[int, int]
    index: int
    masks: UInt8[Tensor, "G S S"] | None = None
    keypoints: Keypoints | None = None


class CocoDataset(Dataset[Sample]):
    """The samples of `annotations` by (epoch, index). A key gives the same sample in any process.

    An index alone stands for epoch 0: `dataset[3]`. A number as `image_size` is the longest side in pixels.

    Without `training` the size is the last of `image_size.min_size`. Without `augmentation` too, the epoch
    has no effect.

    Samples have masks and keypoints if `annotations` do. `keypoint_schemas` says for each class which swap in
    mirrored images (default: by their names); `boxes_from_masks` fits boxes to augmented masks.
    """

    def __init__(
        self,
        annotations: CocoAnnotations,
        *,
        image_size: ImageSize | PositiveInt,
        augmentation: Augmentation | None = None,
        training: bool = False,
        seed: int = 0,
        reading: ReadOptions = ReadOptions(),  # noqa: B008 (frozen)
        keypoint_schemas: Sequence[KeypointSchema | None] = (),
        boxes_from_masks: bool = False,
    ) -> None:
        if not isinstance(annotations, CocoAnnotations):
            raise TypeError(
                f"expected annotations as read_coco(file, images) returns them, got {annotations!r}."
            )
        self.annotations = annotations
        self.image_size = ImageSize(image_size, image_size) if isinstance(image_size, int) else image_size
        self._augmentation = augmentation
        self._training = training
        self._seed = seed
        self._reading = reading
        self._keypoint_schemas = keypoint_schemas
        self._shapes = None
        if annotations.masks is not None or annotations.keypoints is not None:
            from detector.data.shape_samples import ShapeSamples  # late: boxes alone need none of it

            self._shapes = ShapeSamples(annotations, keypoint_schemas, augmentation, boxes_from_masks)

    def __len__(self) -> int:
        return len(self.annotations)

    def __repr__(self) -> str:
        return f"CocoDataset({self.annotations}, {self.image_size})"

    def image_id(self, index: int) -> int | str:
        """Return the id that the annotation file gives to image `index`."""
        return self.annotations.image_id(index)

    def read_image(self, image_id: int | str) -> UInt8[np.ndarray, "H W 3"]:
        """Return the original image with this id, in RGB. Raises ImageFileError."""
        index = self._places[image_id]
        height, width = (int(s) for s in self.annotations.sizes[index])
        return self._read(index, (height, width))

    @cached_property
    def _places(self) -> dict[int | str, int]:
        return {self.image_id(index): index for index in range(len(self))}

    def ground_truth(self, num_images: int | None = None) -> GroundTruth:
        """Return the ground truth of all images, or of the first `num_images`."""
        truth = GroundTruth.of(self.annotations.select_images(np.arange(len(self))[:num_images]))
        sigmas = tuple(() if schema is None else schema.sigmas for schema in self._keypoint_schemas)
        return replace(truth, ignore_unmasked=True, sigmas=sigmas)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, range(len(self))[key])
        height, width = (int(s) for s in self.annotations.sizes[index])
        image = self._read(index, (height, width))
        boxes, labels = self.annotations.training_boxes(index)
        seed = sample_seed(self._seed, epoch, index)
        shapes = None
        if self._shapes is not None:
            image, boxes, labels, shapes = self._shapes.augmented(index, image, boxes, labels, seed=seed)
        elif self._augmentation is not None:
            image, boxes, labels = self._augmentation(image, boxes, labels, seed=seed)
        before = image.shape[0], image.shape[1]
        size = self.image_size.fit(before, min_size=self._min_size(seed))
        image, resized = resize(image, boxes, size=size)
        resized, kept = drop_thin_boxes(resized, np.arange(len(labels)))
        masks, keypoints = None, None
        if shapes is not None:
            masks, keypoints = shapes.select(kept).targets(boxes[kept], from_size=before, to_size=size)
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            boxes=torch.from_numpy(resized.astype(np.float32)),
            labels=torch.from_numpy(labels[kept]),
            original_size=(height, width),
            index=index,
            masks=masks,
            keypoints=keypoints,
        )

    def _read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        try:
            return read_image(self.annotations.image_path(index), declared_size=size, options=self._reading)
        except ImageFileError as error:
            raise ImageFileError(
                f"{error} Restore the file, or train without such images: data.check_images=decode "
                "data.on_bad_image=skip."
            ) from error

    def _min_size(self, seed: int) -> int:
        choices = self.image_size.choices
        return choices[seed % len(choices)] if self._training else choices[-1]
