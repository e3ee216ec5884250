"""One detector for all models: backbone, neck, head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from detector.heads.head import Head
from detector.option_types import PositiveInt, WeightsImages
from detector.structures import Batch, Detections, FeatureSpec


class FeatureModule(Protocol):
    """A backbone or neck: knows what it gives."""

    out_features: Sequence[FeatureSpec]


class Detector(nn.Module):
    """Images in, losses or detections out.

    Takes uint8 RGB and normalises it on the device. Mean and standard deviation are ImageNet's, in units of
    0..1; the padding of a batch becomes zero after normalisation, as if each image were alone.
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
    def feature_levels(self) -> tuple[FeatureSpec, ...]:
        """The maps of the backbone, then those of the neck."""
        parts = (cast(FeatureModule, part) for part in (self.backbone, self.neck))
        return tuple(level for part in parts for level in part.out_features)

    def forward(self, images: UInt8[Tensor, "B 3 H W"], image_sizes: Int64[Tensor, "B 2"]) -> object:
        """The head's raw outputs; `image_sizes` (height, width) tell image from padding."""
        features = self.neck(self.backbone(self.normalise(images, image_sizes)))
        return self.head(features, image_sizes)

    def normalise(
        self, images: UInt8[Tensor, "B 3 H W"], image_sizes: Int64[Tensor, "B 2"]
    ) -> Float[Tensor, "B 3 H W"]:
        rows = torch.arange(images.shape[2], device=images.device) < image_sizes[:, 0, None]
        columns = torch.arange(images.shape[3], device=images.device) < image_sizes[:, 1, None]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        return torch.where(inside, (images - self.mean) / self.std, 0.0)

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Losses by log name; the total is their sum."""
        return self.head.loss(self(batch.images, batch.image_sizes), batch.targets)

    def predict(self, batch: Batch) -> list[Detections]:
        """Detections of each image, in pixels of the resized image."""
        return self.head.predict(self(batch.images, batch.image_sizes))

    def loss_and_predict(self, batch: Batch) -> tuple[dict[str, Float[Tensor, ""]], list[Detections]]:
        """Both from one pass, for validation."""
        outputs = self(batch.images, batch.image_sizes)
        return self.head.loss(outputs, batch.targets), self.head.predict(outputs)


def assemble(
    *,
    backbone: nn.Module,
    neck: Callable[[Sequence[FeatureSpec]], nn.Module],
    head: Callable[[Sequence[FeatureSpec], int], Head],
    num_classes: PositiveInt,
    weights: str | None = None,
    weights_images: WeightsImages = "auto",
    class_names: tuple[str, ...] = (),
) -> Detector:
    """A detector from a backbone and from a neck and head that still wait for what comes below them.

    `weights` of a whole detector, trained on `weights_images`, whose rows of classes go to those of the same
    name in `class_names`: see `load_detector_weights`.

    Example:
        >>> from functools import partial
        >>> from detector.backbones import ResNet
        >>> from detector.heads import FCOSHead
        >>> from detector.necks import FPN
        >>> model = assemble(backbone=ResNet(18), neck=FPN, head=FCOSHead, num_classes=3)
        >>> model.num_classes
        3
    """
    made_neck = neck(cast(FeatureModule, backbone).out_features)
    model = Detector(backbone, made_neck, head(cast(FeatureModule, made_neck).out_features, num_classes))
    if weights is not None:
        from detector.weights.detectors import load_detector_weights  # name maps that others do not need

        load_detector_weights(model, weights, images=weights_images, class_names=class_names)
    return model
