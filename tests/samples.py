"""Small models and batches that tests share."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from detector.backbones.resnet import ResNet, Stage
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.keypoint_branch import KeypointBranch
from detector.heads.mask_branch import MaskBranch
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN, ProposalLimits
from detector.layers.deform import DeformableStages
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.structures import Batch, Targets


def small_fcos(
    *, stages: tuple[Stage, ...] = (), num_classes: int = 3, channels: int = 32, **head: Any
) -> Detector:
    """FCOS on a ResNet-18, thin from the neck on."""
    return build_detector(
        backbone=ResNet(18, norm="batch", deform=DeformableStages(stages=stages)),
        neck=partial(FPN, out_channels=channels),
        head=partial(FCOSHead, num_convs=1, **head),
        num_classes=num_classes,
    )


def small_faster_rcnn(
    *, stages: tuple[Stage, ...] = (), num_classes: int = 3, channels: int = 32, **roi: Any
) -> Detector:
    """Faster R-CNN on a ResNet-18, thin from the neck on. Everything trains: nothing is drawn at random."""
    return build_detector(
        backbone=ResNet(18, norm="batch", deform=DeformableStages(stages=stages), out_stages=(2, 3, 4, 5)),
        neck=partial(FPN, out_channels=channels, extra_levels="maxpool"),
        head=partial(
            FasterRCNNHead,
            rpn=partial(
                RPN,
                batch_size_per_image=100_000,
                limits=ProposalLimits(post_nms_top_n_train=100, post_nms_top_n_test=50),
            ),
            roi=partial(RoIHead, width=32, batch_size_per_image=100_000, **roi),
        ),
        num_classes=num_classes,
    )


def small_mask_rcnn(*, stages: tuple[Stage, ...] = (), **roi: Any) -> Detector:
    """`small_faster_rcnn` with masks, and three keypoints of each object."""
    branches = {
        "mask": partial(MaskBranch, num_convs=1, width=16),
        "keypoint": partial(KeypointBranch, num_convs=1, width=16),
    }
    return small_faster_rcnn(stages=stages, branches=branches, num_keypoints=3, **roi)


def make_batch(
    boxes: list[list[list[float]]], labels: list[list[int]], *, sizes: list[tuple[int, int]], seed: int = 0
) -> Batch:
    """Random images of `sizes` (height, width), padded to multiples of 32, with their boxes."""
    generator = torch.Generator().manual_seed(seed)
    height = max(-(-h // 32) * 32 for h, _ in sizes)
    width = max(-(-w // 32) * 32 for _, w in sizes)
    images = torch.zeros(len(sizes), 3, height, width, dtype=torch.uint8)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)
    size_tensor = torch.tensor(sizes)
    return Batch(images, size_tensor, size_tensor, torch.arange(len(sizes)), pad_targets(boxes, labels))


def pad_targets(boxes: list[list[list[float]]], labels: list[list[int]]) -> Targets:
    most = max(len(b) for b in boxes)
    padded = torch.zeros(len(boxes), most, 4)
    padded_labels = torch.zeros(len(boxes), most, dtype=torch.int64)
    valid = torch.zeros(len(boxes), most, dtype=torch.bool)
    for i, (b, lab) in enumerate(zip(boxes, labels, strict=True)):
        if b:
            padded[i, : len(b)] = torch.tensor(b)
            padded_labels[i, : len(b)] = torch.tensor(lab)
            valid[i, : len(b)] = True
    return Targets(padded, padded_labels, valid)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()
