"""Training steps of our FCOS and torchvision's, equal in everything but the code; and finished runs."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import torchvision
import yaml
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.backbones import ResNet
from detector.heads import FCOSHead
from detector.layers import DeformableStages
from detector.models import Detector, assemble
from detector.necks import FPN
from detector.reports.benchmark import markdown_row
from detector.structures import Batch, Targets


def train_step_candidates(
    depth: Literal[18, 50], batches: Sequence[Batch], *, num_classes: int
) -> dict[str, Callable[[], object]]:
    """Forward, losses, backward and an SGD step on the same batches: torchvision, ours, ours deformable.

    fp32, trainable BatchNorm, no pretrained weights. All get images in memory: ours uint8 and padded as its
    loader gives them, torchvision's each by itself, float in [0, 1], as its loader does.
    """
    torch.manual_seed(0)
    ours = {
        "ours": _ours(depth, (), num_classes),
        "ours, C3-C5 deformable": _ours(depth, (3, 4, 5), num_classes),
    }
    return {
        "torchvision": _torchvision_step(depth, batches, num_classes),
        **{name: _step(model, model.loss, [(batch,) for batch in batches]) for name, model in ours.items()},
    }


def random_batch(*, num_classes: int, size_px: int = 256, batch_size: int = 4, count: int = 10) -> Batch:
    """Noise with `count` boxes an image."""
    torch.manual_seed(0)
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
            torch.randint(0, num_classes, (batch_size, count)),
            torch.ones(batch_size, count, dtype=torch.bool),
        ),
    )


def finished_runs(folders: Sequence[Path]) -> str:
    """A table of what `detector train` left in these folders: the COCO numbers and the time of an epoch."""
    columns = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
    lines = [markdown_row(["deformable stages", "epochs", *columns, "s an epoch"])]
    lines.append(markdown_row(["---", *["---:"] * (len(columns) + 2)]))
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        with (folder / "metrics.csv").open(newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
        stages = config["model"]["backbone"]["deform"]["stages"]
        label = ", ".join(f"C{stage}" for stage in stages) or "none"
        numbers = [f"{metrics[name]:.3f}" for name in columns]
        lines.append(markdown_row([label, str(len(seconds)), *numbers, f"{median(seconds):.0f}"]))
    return "\n".join(lines)


def _ours(depth: Literal[18, 50], stages: tuple[Literal[3, 4, 5], ...], num_classes: int) -> Detector:
    model = assemble(
        backbone=ResNet(depth, norm="batch", deform=DeformableStages(stages=stages)),
        neck=FPN,
        head=FCOSHead,
        num_classes=num_classes,
    )
    return model.to(memory_format=torch.channels_last)


def _torchvision_step(depth: int, batches: Sequence[Batch], num_classes: int) -> Callable[[], object]:
    body = getattr(torchvision.models, f"resnet{depth}")()
    widths = [body.fc.in_features // 2 ** (3 - i) for i in range(1, 4)]
    returned = {f"layer{i}": str(i) for i in (2, 3, 4)}
    backbone = BackboneWithFPN(body, returned, widths, 256, LastLevelP6P7(256, 256))
    sizes = torch.cat([batch.image_sizes for batch in batches])
    model = FCOS(backbone, num_classes, min_size=int(sizes.amin(1).max()), max_size=int(sizes.amax(1).max()))
    return _step(model, model, [_for_torchvision(batch) for batch in batches])


def _for_torchvision(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images = [
        image[:, :h, :w].float() / 255
        for image, (h, w) in zip(batch.images, batch.image_sizes.tolist(), strict=True)
    ]
    given = zip(batch.targets.boxes, batch.targets.labels, batch.targets.valid, strict=True)
    return images, [{"boxes": boxes[valid], "labels": labels[valid]} for boxes, labels, valid in given]


def _step(
    model: nn.Module, losses: Callable[..., dict[str, Tensor]], inputs: Sequence[tuple[Any, ...]]
) -> Callable[[], object]:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    turns = itertools.cycle(inputs)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(losses(*next(turns)).values())).sum().backward()
        optimizer.step()

    return step
