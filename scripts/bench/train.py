"""Training steps and detections of our models and torchvision's, equal in everything but the code; and
finished runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from detector.backbones.resnet import ResNet
from detector.heads.anchors import AnchorGenerator
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.keypoint_branch import KeypointBranch
from detector.heads.mask_branch import MaskBranch
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN
from detector.layers.deform import DeformableStages
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.ops.masks import paste
from detector.profiling.noise import random_batch, with_shapes
from detector.run_folder import RunFolder
from detector.structures import Batch
from detector.weights.foreign import to_torchvision

from .timing import markdown_row

Model = Literal["fcos", "faster_rcnn", "mask_rcnn", "keypoint_rcnn"]
Depth = Literal[18, 50]


def train_step_candidates(
    model: Model,
    depth: Depth,
    batches: Sequence[Batch],
    *,
    num_classes: int,
    device: str = "cpu",
    autocast: torch.dtype | None = None,
) -> dict[str, Callable[[], object]]:
    """Forward, losses, backward and an SGD step on the same batches: torchvision, ours, ours deformable.

    Trainable BatchNorm, no pretrained weights; fp32, or mixed precision with `autocast`. All get images in
    the device's memory: ours uint8 and padded as its loader gives them, torchvision's each by itself, float
    in [0, 1], as its loader does.
    """
    torch.manual_seed(0)
    batches = [batch.to(device) for batch in batches]
    theirs, ours = _same_models(model, depth, batches, num_classes, device)
    precision = partial(torch.autocast, torch.device(device).type, autocast, enabled=autocast is not None)
    inputs = [_for_torchvision(batch, model) for batch in batches]
    return {
        "torchvision": _step(theirs, theirs, inputs, precision),
        **{name: _step(one, one.loss, [(b,) for b in batches], precision) for name, one in ours.items()},
    }


def inference_candidates(
    model: Model, depth: Depth, batches: Sequence[Batch], *, num_classes: int
) -> dict[str, Callable[[], object]]:
    """Detections of the same batches with equal limits: torchvision, ours, ours deformable."""
    torch.manual_seed(0)
    theirs, ours = _same_models(model, depth, batches, num_classes, "cpu")
    inputs = [_for_torchvision(batch, model)[0] for batch in batches]
    candidates = {"torchvision": _prediction(theirs.eval(), inputs)}
    candidates.update({name: _prediction(one.eval().predict, batches) for name, one in ours.items()})
    return candidates


def candidates_of(
    model: Model, depth: Depth, mode: Literal["training step", "inference"]
) -> dict[str, Callable[[], object]]:
    """Those of `mode`, on a batch of noise with 80 classes."""
    make = train_step_candidates if mode == "training step" else inference_candidates
    return make(model, depth, [random_batch(num_classes=80)], num_classes=80)


def branch_candidates(model: Model) -> dict[str, Callable[[], object]]:
    """Training steps with ResNet-50 on two images of noise, 512 x 512, with 10 objects each."""
    batch = random_batch(num_classes=80, image_size=(512, 512), batch_size=2)
    batch = with_shapes(batch, tasks=("segm", "keypoints"), num_keypoints=17)
    return train_step_candidates(model, 50, [batch], num_classes=80)


def finished_runs(folders: Sequence[Path]) -> str:
    """A table of the COCO numbers that `detector train` left in these folders."""
    from detector.evaluation.metrics import BY_CLASS  # needs packages that the check of a device does without

    columns = [spec.name for spec in BY_CLASS]
    lines = [markdown_row(["deformable stages", "epochs", *columns])]
    lines.append(markdown_row(["---", *["---:"] * (len(columns) + 1)]))
    for folder in folders:
        files = RunFolder(folder)
        metrics, epochs = files.read_metrics(), len(files.read_epochs())
        stages = files.read_config()["model"]["backbone"]["deform"]["stages"]
        label = ", ".join(f"C{stage}" for stage in stages) or "none"
        numbers = [f"{metrics[name]:.3f}" for name in columns]
        lines.append(markdown_row([label, str(epochs), *numbers]))
    return "\n".join(lines)


def _same_models(
    model: Model, depth: Depth, batches: Sequence[Batch], num_classes: int, device: str
) -> tuple[nn.Module, dict[str, Detector]]:
    """torchvision's and ours, with the same weights: they find the same, and so have the same to do."""
    plain = _ours(model, depth, (), num_classes)
    deformable = _ours(model, depth, (3, 4, 5), num_classes)
    deformable.load_state_dict(plain.state_dict(), strict=False)
    theirs = _theirs(model, depth, batches, num_classes)
    theirs.load_state_dict(to_torchvision(plain.state_dict()))
    ours = {"ours": plain, "ours, C3-C5 deformable": deformable}
    return theirs.to(device), {name: one.to(device) for name, one in ours.items()}


def _ours(model: Model, depth: Depth, stages: tuple[Literal[3, 4, 5], ...], num_classes: int) -> Detector:
    is_fcos = model == "fcos"
    branches: dict[Model, Any] = {
        "mask_rcnn": {"mask": MaskBranch},
        "keypoint_rcnn": {"keypoint": KeypointBranch},
    }
    roi = partial(RoIHead, score_threshold=0.05, branches=branches.get(model, {}))  # torchvision's
    ours = build_detector(
        backbone=ResNet(
            depth,
            norm="batch",
            deform=DeformableStages(stages=stages),
            out_stages=(3, 4, 5) if is_fcos else (2, 3, 4, 5),
        ),
        neck=FPN if is_fcos else partial(FPN, extra_levels="maxpool"),
        head=partial(FCOSHead, score_threshold=0.2)
        if is_fcos
        else partial(
            FasterRCNNHead, rpn=partial(RPN, anchor_generator=AnchorGenerator(grid="torchvision")), roi=roi
        ),
        num_classes=num_classes,
    )
    return ours.to(memory_format=torch.channels_last)


def _theirs(model: Model, depth: int, batches: Sequence[Batch], num_classes: int) -> nn.Module:
    body = getattr(torchvision.models, f"resnet{depth}")()
    stages = (2, 3, 4) if model == "fcos" else (1, 2, 3, 4)
    widths = [body.fc.in_features // 2 ** (4 - i) for i in stages]
    returned = {f"layer{stage}": str(i) for i, stage in enumerate(stages)}
    sizes = torch.cat([batch.image_sizes for batch in batches])
    limits = {"min_size": int(sizes.amin(1).max()), "max_size": int(sizes.amax(1).max())}
    if model == "fcos":
        return FCOS(
            BackboneWithFPN(body, returned, widths, 256, LastLevelP6P7(256, 256)), num_classes, **limits
        )
    backbone = BackboneWithFPN(body, returned, widths, 256, LastLevelMaxPool())
    make = {"mask_rcnn": MaskRCNN, "keypoint_rcnn": KeypointRCNN}.get(model, FasterRCNN)
    return make(backbone, num_classes + 1, **limits)


def _for_torchvision(batch: Batch, model: Model) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The images and what the model needs of their objects, each by itself, without padding."""
    images, targets = [], []
    for number, (height, width) in enumerate(batch.image_sizes.tolist()):
        images.append(batch.images[number, :, :height, :width].float() / 255)
        objects = batch.targets.select(torch.tensor(number)).select(batch.targets.valid[number])
        # Label 0 is background to its Faster R-CNN and a class to its FCOS: 1 is a class to both.
        target = {"boxes": objects.boxes, "labels": objects.labels.clamp(min=1)}
        if model == "mask_rcnn" and objects.masks:
            target["masks"] = paste(objects.masks.coverage, objects.boxes, (height, width)).byte()
        if model == "keypoint_rcnn" and objects.keypoints:
            visibility = objects.keypoints.visibility[..., None]
            target["keypoints"] = torch.cat([objects.keypoints.xy, visibility], dim=-1)
        targets.append(target)
    return images, targets


def _prediction(predict: Callable[[Any], object], inputs: Sequence[Any]) -> Callable[[], object]:
    turns = itertools.cycle(inputs)

    def run() -> object:
        with torch.inference_mode():
            return predict(next(turns))

    return run


def _step(
    model: nn.Module,
    losses: Callable[..., dict[str, Tensor]],
    inputs: Sequence[tuple[Any, ...]],
    precision: Callable[[], AbstractContextManager[object]],
) -> Callable[[], object]:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    turns = itertools.cycle(inputs)

    def step() -> None:
        optimizer.zero_grad()
        with precision():
            total = torch.stack(list(losses(*next(turns)).values())).sum()
        total.backward()
        optimizer.step()

    return step
