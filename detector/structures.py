"""The data that flows between the parts: frozen dataclasses of tensors."""

# B images, G ground-truth boxes (padded), N detections of one image

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class FeatureSpec:
    """One feature map of a backbone or neck.

    `name` is the field's term ("c3", "p5"); `stride_px` is the distance of neighbouring cells in pixels of
    the input image.
    """

    name: str
    channels: int
    stride_px: int


@dataclass(frozen=True)
class Targets:
    """Ground truth of a batch, padded to the image with the most boxes.

    Boxes are xyxy in pixels of the resized image, x1 < x2 and y1 < y2. Labels are contiguous classes in [0,
    num_classes). Where `valid` is false the entry is padding (a zero box, label 0) and must have no effect.
    Crowd regions are not in here. G may be 0.
    """

    boxes: Float[Tensor, "B G 4"]
    labels: Int64[Tensor, "B G"]
    valid: Bool[Tensor, "B G"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        return Targets(
            *(t.to(device, non_blocking=non_blocking) for t in (self.boxes, self.labels, self.valid))
        )

    def pin_memory(self) -> Targets:
        return Targets(self.boxes.pin_memory(), self.labels.pin_memory(), self.valid.pin_memory())


@dataclass(frozen=True)
class Batch:
    """Images of one step, padded at the right and bottom to a common size.

    `image_sizes` and `original_sizes` are (height, width) in pixels: of the resized image inside the padding,
    and of the image file as its annotations see it. `indices` are positions in the dataset, which knows the
    original ids.
    """

    images: UInt8[Tensor, "B 3 H W"]
    image_sizes: Int64[Tensor, "B 2"]
    original_sizes: Int64[Tensor, "B 2"]
    indices: Int64[Tensor, "B"]
    targets: Targets

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return Batch(
            images=self.images.to(device, non_blocking=non_blocking),
            image_sizes=self.image_sizes.to(device, non_blocking=non_blocking),
            original_sizes=self.original_sizes.to(device, non_blocking=non_blocking),
            indices=self.indices.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        return Batch(
            images=self.images.pin_memory(),
            image_sizes=self.image_sizes.pin_memory(),
            original_sizes=self.original_sizes.pin_memory(),
            indices=self.indices.pin_memory(),
            targets=self.targets.pin_memory(),
        )


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    Boxes are xyxy in pixels, scores in [0, 1], labels in [0, num_classes).
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, "N"]
    labels: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.scores)

    def resized(self, *, from_size: tuple[int, int], to_size: tuple[int, int]) -> Detections:
        """The same detections in another size (height, width) of the same image, clipped to it."""
        (h0, w0), (h1, w1) = from_size, to_size
        scale = self.boxes.new_tensor([w1 / w0, h1 / h0, w1 / w0, h1 / h0])
        limit = self.boxes.new_tensor([w1, h1, w1, h1])
        return replace(self, boxes=(self.boxes * scale).clamp(min=0).minimum(limit))

    def to(self, device: torch.device | str) -> Detections:
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))
