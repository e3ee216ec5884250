"""A branch of the second stage that finds one point of each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from detector.heads import RoIBranch
from detector.structures import Detections, FeatureSpec, Keypoints, Targets


class Centers(RoIBranch):
    """Knows the center of a box, up to a shift that it learns."""

    def __init__(self, features: Sequence[FeatureSpec], num_classes: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def loss(self, features: Sequence[Tensor], foreground: object, targets: Targets) -> dict[str, Tensor]:
        return {"loss_center": self.shift.square().sum()}

    def add_to(self, features: Sequence[Tensor], detections: Detections, image: Tensor) -> Detections:
        boxes = detections.boxes
        xy = ((boxes[:, :2] + boxes[:, 2:]) / 2 + self.shift)[:, None]
        return replace(detections, keypoints=Keypoints(xy, torch.full(xy.shape[:2], 2)))
