"""Losses of dense detectors, summed: the caller divides by its number of positives."""

# C classes

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from detector.ops.boxes import generalized_iou

DeltaLoss = Literal["smooth_l1", "l1"]


def focal_loss_sum(
    logits: Float[Tensor, "*n C"], labels: Int64[Tensor, "*n"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Sum of the sigmoid focal loss (Lin et al. 2017) over all places and classes.

    A label in [0, C) is the one positive class of its place; -1 is background. The positives are gathered
    instead of written into a one-hot tensor, so the loss costs one pass over the logits.
    """
    prob = logits.sigmoid()
    as_negative = (1 - alpha) * prob.pow(gamma) * F.softplus(logits)

    foreground = labels >= 0
    logit = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    p = logit.sigmoid()
    correction = alpha * (1 - p).pow(gamma) * F.softplus(-logit) - (1 - alpha) * p.pow(gamma) * F.softplus(
        logit
    )
    return as_negative.sum() + correction.masked_fill(~foreground, 0).sum()


def giou_loss(predicted: Float[Tensor, "*n 4"], target: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """1 - generalised IoU of xyxy boxes, pair by pair, in [0, 2)."""
    return 1 - generalized_iou(predicted, target)


def delta_loss(
    found: Float[Tensor, "*n 4"], wanted: Float[Tensor, "*n 4"], *, kind: DeltaLoss, beta: float
) -> Float[Tensor, "*n"]:
    """Smooth L1, quadratic below `beta` (Girshick 2015), or L1, of encoded boxes, summed over the four."""
    return F.smooth_l1_loss(found, wanted, beta=beta if kind == "smooth_l1" else 0.0, reduction="none").sum(
        -1
    )
