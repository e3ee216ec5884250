"""Losses of classes and boxes, for a head to be given: frozen objects that are called.

None is averaged: the caller divides by its number of positives.
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
    """A loss of the classes at many places, summed over places and classes."""

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "*n C"], labels: Int64[Tensor, "*n"]) -> Float[Tensor, ""]:
        """A label in [0, C) is the one positive class of its place; -1 is background."""


@dataclass(frozen=True)
class Focal(ClassificationLoss):
    """The sigmoid focal loss (Lin et al. 2017).

    `alpha` weights positives and 1 - `alpha` negatives; `gamma` turns the loss down where the prediction is
    right already.
    """

    alpha: Fraction = 0.25
    gamma: NonNegativeFloat = 2.0

    def __call__(self, logits: Float[Tensor, "*n C"], labels: Int64[Tensor, "*n"]) -> Float[Tensor, ""]:
        # The positives are gathered instead of written into a one-hot tensor: one pass over the logits.
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
    """What a head predicts of a box, relative to the place where it predicts it."""

    @abstractmethod
    def encode(self, boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Turn xyxy boxes into what a perfect head would predict."""

    @abstractmethod
    def decode(self, encoded: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        """Turn predictions into xyxy boxes."""


@dataclass(frozen=True)
class DeltaCoder(BoxCoder):
    """Deltas from anchors or proposals, xyxy, times `weights` (Ren et al. 2015)."""

    anchors: Float[Tensor, "*#n 4"]
    weights: CoderWeights

    def encode(self, boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return encode_boxes(boxes, self.anchors, weights=self.weights)

    def decode(self, encoded: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return decode_boxes(encoded, self.anchors, weights=self.weights)


@dataclass(frozen=True)
class DistanceCoder(BoxCoder):
    """Distances from points (x, y) to the left, top, right and bottom side, in strides (Tian et al. 2019)."""

    points: Float[Tensor, "*#n 2"]
    strides: Float[Tensor, "*#n"]

    def encode(self, boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return boxes_to_distances(self.points, boxes) / self.strides[..., None]

    def decode(self, encoded: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
        return distances_to_boxes(self.points, encoded * self.strides[..., None])


class BoxLoss(ABC):
    """A loss of predicted boxes, one number a box.

    Write a new one as an `EncodedBoxLoss` or a `DecodedBoxLoss`: any head takes it then.
    """

    @abstractmethod
    def __call__(
        self, predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]
    ) -> Float[Tensor, "*n"]:
        """Compare pair by pair, both as the loss takes them."""

    @abstractmethod
    def of_encoded(
        self, encoded: Float[Tensor, "*n 4"], boxes: Float[Tensor, "*n 4"], *, coder: BoxCoder
    ) -> Float[Tensor, "*n"]:
        """Compare what a head predicts with the boxes (xyxy) that it should predict."""


class EncodedBoxLoss(BoxLoss):
    """A loss of what a head predicts: deltas, or distances in strides."""

    def of_encoded(
        self, encoded: Float[Tensor, "*n 4"], boxes: Float[Tensor, "*n 4"], *, coder: BoxCoder
    ) -> Float[Tensor, "*n"]:
        return self(encoded, coder.encode(boxes))


class DecodedBoxLoss(BoxLoss):
    """A loss of xyxy boxes."""

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
