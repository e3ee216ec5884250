"""Training steps of our FCOS and torchvision's, equal in everything but the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.backbones import ResNet
from detector.heads import FCOSHead
from detector.layers import DeformableStages
from detector.models import Detector, assemble
from detector.necks import FPN
from detector.structures import Batch, Targets

NUM_CLASSES = 80


def train_step_candidates(
    depth: Literal[18, 50], *, size_px: int = 256, batch_size: int = 4, boxes_per_image: int = 10
) -> dict[str, Callable[[], object]]:
    """Forward, losses, backward and an SGD step on the same random images and boxes: torchvision, ours, ours
    deformable.

    fp32, trainable BatchNorm, 80 classes, no pretrained weights. Both get images in memory: ours uint8 as its
    loader gives them, torchvision's float in [0, 1] as its loader does.
    """
    torch.manual_seed(0)
    batch = _random_batch(size_px, batch_size, boxes_per_image)
    return {
        "torchvision": _torchvision_step(depth, batch),
        "ours": _step(_ours(depth, ()), lambda model: model.loss(batch)),
        "ours, C3-C5 deformable": _step(_ours(depth, (3, 4, 5)), lambda model: model.loss(batch)),
    }


def _random_batch(size_px: int, batch_size: int, count: int) -> Batch:
    corner = torch.rand(batch_size, count, 2) * 0.7 * size_px
    extent = torch.rand(batch_size, count, 2) * 0.28 * size_px + 4
    sizes = torch.full((batch_size, 2), size_px)
    return Batch(
        images=torch.randint(0, 256, (batch_size, 3, size_px, size_px), dtype=torch.uint8),
        image_sizes=sizes,
        original_sizes=sizes,
        indices=torch.arange(batch_size),
        targets=Targets(
            torch.cat([corner, corner + extent], dim=-1),
            torch.randint(0, NUM_CLASSES, (batch_size, count)),
            torch.ones(batch_size, count, dtype=torch.bool),
        ),
    )


def _ours(depth: Literal[18, 50], stages: tuple[Literal[3, 4, 5], ...]) -> Detector:
    model = assemble(
        backbone=ResNet(depth, norm="batch", deform=DeformableStages(stages=stages)),
        neck=FPN,
        head=FCOSHead,
        num_classes=NUM_CLASSES,
    )
    return model.to(memory_format=torch.channels_last)


def _torchvision_step(depth: int, batch: Batch) -> Callable[[], object]:
    body = getattr(torchvision.models, f"resnet{depth}")()
    widths = [body.fc.in_features // 2 ** (3 - i) for i in range(1, 4)]
    returned = {f"layer{i}": str(i) for i in (2, 3, 4)}
    backbone = BackboneWithFPN(body, returned, widths, 256, LastLevelP6P7(256, 256))
    size = batch.images.shape[-1]
    model = FCOS(backbone, NUM_CLASSES, min_size=size, max_size=size)
    images = [image.float() / 255 for image in batch.images]
    targets = [
        {"boxes": boxes, "labels": labels}
        for boxes, labels in zip(batch.targets.boxes, batch.targets.labels, strict=True)
    ]
    return _step(model, lambda model: model(images, targets))


def _step(model: nn.Module, losses: Callable[..., dict[str, Tensor]]) -> Callable[[], object]:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(losses(model).values())).sum().backward()
        optimizer.step()

    return step
