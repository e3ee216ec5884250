"""The detector that all models share: a backbone, a neck and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from detector.heads.head import Head
from detector.option_types import PositiveInt, TaskName, WeightsImages
from detector.structures import Batch, Detections, FeatureSpec


class FeatureModule(Protocol):
    """A backbone or neck, which declares the feature maps it returns."""

    out_features: Sequence[FeatureSpec]


class Detector(nn.Module):
    """A detector, which turns images into losses or detections.

    It takes uint8 RGB and normalizes it on the device with ImageNet's mean and standard deviation (for values
    in 0..1). Padding becomes zero after normalization, as if each image were alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", 255 * mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * std.view(1, 3, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What is predicted of each object, boxes first."""
        return self.head.tasks

    @property
    def feature_levels(self) -> tuple[FeatureSpec, ...]:
        """The feature maps of the backbone, followed by those of the neck."""
        parts = (cast(FeatureModule, part) for part in (self.backbone, self.neck))
        return tuple(level for part in parts for level in part.out_features)

    def forward(self, images: UInt8[Tensor, "B 3 H W"], image_sizes: Int64[Tensor, "B 2"]) -> object:
        """Return the head's raw outputs; `image_sizes` (height, width) separate the images from padding."""
        features = self.neck(self.backbone(self.normalize(images, image_sizes)))
        return self.head(features, image_sizes)

    def normalize(
        self, images: UInt8[Tensor, "B 3 H W"], image_sizes: Int64[Tensor, "B 2"]
    ) -> Float[Tensor, "B 3 H W"]:
        rows = torch.arange(images.shape[2], device=images.device) < image_sizes[:, 0, None]
        columns = torch.arange(images.shape[3], device=images.device) < image_sizes[:, 1, None]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        return torch.where(inside, (images - self.mean) / self.std, 0.0)

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Return the losses by log name; the total loss is their sum."""
        return self.head.loss(self(batch.images, batch.image_sizes), batch.targets)

    def predict(self, batch: Batch) -> list[Detections]:
        """Return the detections of each image, in pixels of the resized image."""
        return self.head.predict(self(batch.images, batch.image_sizes))

    def loss_and_predict(self, batch: Batch) -> tuple[dict[str, Float[Tensor, ""]], list[Detections]]:
        """Return losses and detections from one forward pass, for validation."""
        outputs = self(batch.images, batch.image_sizes)
        return self.head.loss(outputs, batch.targets), self.head.predict(outputs)


def build_detector(
    *,
    backbone: nn.Module,
    neck: Callable[[Sequence[FeatureSpec]], nn.Module],
    head: Callable[[Sequence[FeatureSpec], int], Head],
    num_classes: PositiveInt,
    weights: str | None = None,
    weights_images: WeightsImages = "auto",
    class_names: tuple[str, ...] = (),
) -> Detector:
    """Build a detector from a backbone and the factories of its neck and head.

    Each factory receives the features of the part below. `weights` are those of a whole detector, trained on
    `weights_images`; its class rows are copied to the classes of the same name in `class_names`, see
    `load_detector_weights`.

    Examples:
        >>> from functools import partial
        >>> from detector.backbones import ResNet
        >>> from detector.heads import FCOSHead
        >>> from detector.necks import FPN
        >>> model = build_detector(backbone=ResNet(18), neck=FPN, head=FCOSHead, num_classes=3)
        >>> model.num_classes
        3
    """
    neck_module = neck(cast(FeatureModule, backbone).out_features)
    model = Detector(backbone, neck_module, head(cast(FeatureModule, neck_module).out_features, num_classes))
    if weights is not None:
        from detector.weights.detectors import load_detector_weights  # loads name maps

        load_detector_weights(model, weights, images=weights_images, class_names=class_names)
    return model
