"""Classification and box losses, which are injected into a head as frozen callables.

They do not average: the caller divides by its number of positives.
"""

# C classes

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from detector.ops.boxes import (
    CoderWeights,
    boxes_to_distances,
    decode_boxes,
    distances_to_boxes,
    encode_boxes,
    generalized_iou,
)
from detector.option_types import Fraction, NonNegativeFloat


class ClassificationLoss(ABC):
    """A classification loss, summed over positions and classes."""

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "*n C"], labels: Int64[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Return the loss; a label in [0, C) is the only positive class at its position, -1 is background."""


@dataclass(frozen=True)
class Focal(ClassificationLoss):
    """The sigmoid focal loss (Lin et al. 2017).

    `alpha` weights positives and 1 - `alpha` negatives; `gamma` reduces the loss of predictions that are
    already right.
    """

    alpha: Fraction = 0.25
    gamma: NonNegativeFloat = 2.0

    def __call__(self, logits: Float[Tensor, "*n C"], labels: Int64[Tensor, "*n"]) -> Float[Tensor, ""]:
        # Positives are gathered instead of compared with a one-hot tensor: one pass over the logits.
        alpha, gamma = self.alpha, self.gamma
        prob = logits.sigmoid()
        as_negative = (1 - alpha) * prob.pow(gamma) * F.softplus(logits)

        foreground = labels >= 0
        logit = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        p = logit.sigmoid()
        as_positive = alpha * (1 - p).pow(gamma) * F.softplus(-logit)
        correction = as_positive - (1 - alpha) * p.pow(gamma) * F.softplus(logit)
        return as_negative.sum() + correction.masked_fill(~foreground, 0).sum()


class BoxCoder(ABC):
    """An encoding of boxes relative to the position where a head predicts them."""

    @abstractmethod
    def encode(self, boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Turn xyxy boxes into the predictions of a perfect head."""

    @abstractmethod
    def decode(self, encoded: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Turn predictions into xyxy boxes."""


@dataclass(frozen=True)
class DeltaCoder(BoxCoder):
    """An encoding as deltas from anchors or proposals, xyxy, times `weights` (Ren et al. 2015)."""

    anchors: Float[Tensor, "*#n 4"]
    weights: CoderWeights

    def encode(self, boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return encode_boxes(boxes, self.anchors, weights=self.weights)

    def decode(self, encoded: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return decode_boxes(encoded, self.anchors, weights=self.weights)


@dataclass(frozen=True)
class DistanceCoder(BoxCoder):
    """An encoding as distances from points (x, y) to the left, top, right and bottom side, in strides.

    Source: Tian et al. 2019.
    """

    points: Float[Tensor, "*#n 2"]
    strides: Float[Tensor, "*#n"]

    def encode(self, boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return boxes_to_distances(self.points, boxes) / self.strides[..., None]

    def decode(self, encoded: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return distances_to_boxes(self.points, encoded * self.strides[..., None])


class BoxLoss(ABC):
    """A loss of predicted boxes, one value per box.

    Write a new one as an `EncodedBoxLoss` or a `DecodedBoxLoss`, so that any head can use it.
    """

    @abstractmethod
    def __call__(
        self, predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]
    ) -> Float[Tensor, "*n"]:
        """Compare pairs, both encoded or both decoded as this loss requires."""

    @abstractmethod
    def of_encoded(
        self, encoded: Float[Tensor, "*n 4"], boxes: Float[Tensor, "*n 4"], *, coder: BoxCoder
    ) -> Float[Tensor, "*n"]:
        """Compare the predictions of a head with the boxes (xyxy) that it should predict."""


class EncodedBoxLoss(BoxLoss):
    """A loss of encoded boxes: deltas, or distances in strides."""

    def of_encoded(
        self, encoded: Float[Tensor, "*n 4"], boxes: Float[Tensor, "*n 4"], *, coder: BoxCoder
    ) -> Float[Tensor, "*n"]:
        return self(encoded, coder.encode(boxes))


class DecodedBoxLoss(BoxLoss):
    """A loss of decoded boxes, xyxy."""

    def of_encoded(
        self, encoded: Float[Tensor, "*n 4"], boxes: Float[Tensor, "*n 4"], *, coder: BoxCoder
    ) -> Float[Tensor, "*n"]:
        return self(coder.decode(encoded), boxes)


@dataclass(frozen=True)
class SmoothL1(EncodedBoxLoss):
    """The absolute difference, quadratic below `beta` (Girshick 2015), summed over the four numbers."""

    beta: NonNegativeFloat = 1 / 9

    def __call__(
        self, predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]
    ) -> Float[Tensor, "*n"]:
        return F.smooth_l1_loss(predicted, target, beta=self.beta, reduction="none").sum(-1)


@dataclass(frozen=True)
class L1(EncodedBoxLoss):
    """The absolute difference, summed over the four numbers."""

    def __call__(
        self, predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]
    ) -> Float[Tensor, "*n"]:
        return F.l1_loss(predicted, target, reduction="none").sum(-1)


@dataclass(frozen=True)
class GIoU(DecodedBoxLoss):
    """1 - generalized IoU (Rezatofighi et al. 2019), in [0, 2)."""

    def __call__(
        self, predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]
    ) -> Float[Tensor, "*n"]:
        return 1 - generalized_iou(predicted, target)
