"""Detectors of ours and state dicts of other projects, to convert one into the other.

Most claims are of names and shapes: `dry` builds a model on the meta device, and a `hollow` state has the
shapes and costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.backbones.resnet import ResNet, Stage
from detector.heads.anchors import AnchorGenerator
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN
from detector.layers.deform import DeformableStages
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.weights import detectors
from detector.weights.files import StoredWeights

STAGES: tuple[Stage, ...] = (3, 4, 5)  # deformable in the foreign checkpoints
NORM = ("weight", "bias", "running_mean", "running_var")
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}  # ResNet-50
CLASSES = 7
MODULATED = DeformableStages(stages=STAGES, modulation="sigmoid")


def faster_rcnn(**options: Any) -> Detector:
    return build_detector(
        backbone=ResNet(50, out_stages=(2, 3, 4, 5), **options),
        neck=partial(FPN, extra_levels="maxpool"),
        head=partial(FasterRCNNHead, rpn=partial(RPN, anchor_generator=AnchorGenerator())),
        num_classes=CLASSES,
    )


def fcos(*, level_scales: bool = False, **options: Any) -> Detector:
    return build_detector(
        backbone=ResNet(50, **options),
        neck=FPN,
        head=partial(FCOSHead, level_scales=level_scales),
        num_classes=CLASSES,
    )


def small(num_classes: int = CLASSES, **options: Any) -> Detector:
    """Faster R-CNN on a ResNet-18, with `deform` stages and other options of its `neck` and `roi`."""
    return build_detector(
        backbone=ResNet(18, out_stages=(2, 3, 4, 5), deform=options.pop("deform", None)),
        neck=partial(FPN, extra_levels="maxpool", out_channels=8, **options.pop("neck", {})),
        head=partial(FasterRCNNHead, roi=partial(RoIHead, width=8, **options.pop("roi", {}))),
        num_classes=num_classes,
        **options,
    )


def dry(make: Callable[..., Detector], **options: Any) -> Detector:
    with torch.device("meta"):
        return make(**options)


def hollow(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Zeros of the shapes, or of the shapes and types of the tensors, each stored as a single one."""
    return {
        name: torch.zeros((), dtype=like.dtype).expand(like.shape)
        if isinstance(like, Tensor)
        else torch.zeros(()).expand(like)
        for name, like in state.items()
    }


def load(model: Detector, state: Mapping[str, Any], **config: Any) -> None:
    """What `model.weights=x.pth` does with a file of such a state, of our model if it has a `config`."""
    with pytest.MonkeyPatch.context() as patch:
        stored = StoredWeights(hollow(state), config=config)
        patch.setattr(detectors, "read_weights", lambda *keywords, **options: stored)
        detectors.load_detector_weights(model, "x.pth")


def require_fit(ours: Mapping[str, Tensor], model: Detector) -> None:
    """Every name and every shape is that of the model."""
    model.load_state_dict(dict(ours), strict=True, assign=True)


def bottlenecks(*, conv: str, norm: str, shortcut: str, shortcut_norm: str, stage: str) -> dict[str, Any]:
    """Names and shapes of ResNet-50's stages; `norm` is a format of the number of its convolution."""
    entries: dict[str, Any] = {}

    def normed(name: str, channels: int) -> None:
        entries.update({f"{name}.{k}": (channels,) for k in NORM})

    before = 64
    for number, count in BLOCKS.items():
        width = 64 * 2 ** (number - 2)
        for block in range(count):
            prefix = f"{stage.format(number, number - 1)}.{block}."
            shapes = [(width, before, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            for i, shape in enumerate(shapes, start=1):
                entries[prefix + conv.format(i)] = shape
                normed(prefix + norm.format(i), shape[0])
            if block == 0:
                entries[prefix + shortcut] = (4 * width, before, 1, 1)
                normed(prefix + shortcut_norm, 4 * width)
            before = 4 * width
    return entries


def mmdetection_backbone(offset: str = "conv2.conv_offset", channels: int = 27) -> dict[str, Any]:
    entries: dict[str, Any] = {"backbone.conv1.weight": (64, 3, 7, 7)}
    entries |= {f"backbone.bn1.{k}": (64,) for k in NORM}
    entries |= bottlenecks(
        stage="backbone.layer{1}",
        conv="conv{}.weight",
        norm="bn{}",
        shortcut="downsample.0.weight",
        shortcut_norm="downsample.1",
    )
    for stage in STAGES:
        for block in range(BLOCKS[stage]):
            name = f"backbone.layer{stage - 1}.{block}.{offset}"
            entries[f"{name}.weight"] = (channels, 64 * 2 ** (stage - 2), 3, 3)
            entries[f"{name}.bias"] = (channels,)
    return entries


def pyramid(names: list[tuple[str, int, int]]) -> dict[str, Any]:
    """Convolutions with 256 output channels: name, input channels, kernel size."""
    return {
        f"{name}.{kind}": (256, channels, size, size) if kind == "weight" else (256,)
        for name, channels, size in names
        for kind in ("weight", "bias")
    }


def layer(name: str, *shape: int) -> dict[str, Any]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def mmdetection_faster_rcnn() -> dict[str, Any]:
    box_head = "roi_head.bbox_head"
    return {
        **mmdetection_backbone(),
        **pyramid([(f"neck.lateral_convs.{i}.conv", 256 * 2**i, 1) for i in range(4)]),
        **pyramid([(f"neck.fpn_convs.{i}.conv", 256, 3) for i in range(4)]),
        **layer("rpn_head.rpn_conv", 256, 256, 3, 3),
        **layer("rpn_head.rpn_cls", 3, 256, 1, 1),
        **layer("rpn_head.rpn_reg", 12, 256, 1, 1),
        **layer(f"{box_head}.shared_fcs.0", 1024, 256 * 49),
        **layer(f"{box_head}.shared_fcs.1", 1024, 1024),
        **layer(f"{box_head}.fc_cls", CLASSES + 1, 1024),
        **layer(f"{box_head}.fc_reg", 4 * CLASSES, 1024),
    }


def mmdetection_fcos() -> dict[str, Any]:
    towers: dict[str, Any] = {}
    for tower in ("cls", "reg"):
        for i in range(4):
            towers |= layer(f"bbox_head.{tower}_convs.{i}.conv", 256, 256, 3, 3)
            towers |= layer(f"bbox_head.{tower}_convs.{i}.gn", 256)
    return {
        **mmdetection_backbone(),
        **pyramid([(f"neck.lateral_convs.{i}.conv", 512 * 2**i, 1) for i in range(3)]),
        **pyramid([(f"neck.fpn_convs.{i}.conv", 256, 3) for i in range(5)]),
        **towers,
        **layer("bbox_head.conv_cls", CLASSES, 256, 3, 3),
        **layer("bbox_head.conv_reg", 4, 256, 3, 3),
        **layer("bbox_head.conv_centerness", 1, 256, 3, 3),
        **{f"bbox_head.scales.{i}.scale": () for i in range(5)},
    }


def detectron2_faster_rcnn() -> dict[str, Any]:
    body = "backbone.bottom_up"
    offsets: dict[str, Any] = {}
    for stage in STAGES:
        for block in range(BLOCKS[stage]):
            offsets |= layer(f"{body}.res{stage}.{block}.conv2_offset", 27, 64 * 2 ** (stage - 2), 3, 3)
    return {
        f"{body}.stem.conv1.weight": (64, 3, 7, 7),
        **{f"{body}.stem.conv1.norm.{k}": (64,) for k in NORM},
        **bottlenecks(
            stage=body + ".res{0}",
            conv="conv{}.weight",
            norm="conv{}.norm",
            shortcut="shortcut.weight",
            shortcut_norm="shortcut.norm",
        ),
        **offsets,
        **pyramid([(f"backbone.fpn_lateral{i}", 256 * 2 ** (i - 2), 1) for i in range(2, 6)]),
        **pyramid([(f"backbone.fpn_output{i}", 256, 3) for i in range(2, 6)]),
        **layer("proposal_generator.rpn_head.conv", 256, 256, 3, 3),
        **layer("proposal_generator.rpn_head.objectness_logits", 3, 256, 1, 1),
        **layer("proposal_generator.rpn_head.anchor_deltas", 12, 256, 1, 1),
        **layer("roi_heads.box_head.fc1", 1024, 256 * 49),
        **layer("roi_heads.box_head.fc2", 1024, 1024),
        **layer("roi_heads.box_predictor.cls_score", CLASSES + 1, 1024),
        **layer("roi_heads.box_predictor.bbox_pred", 4 * CLASSES, 1024),
        "pixel_mean": (3, 1, 1),
        "pixel_std": (3, 1, 1),
    }


def mmdetection_pooling(*, modulated: bool) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for level in range(4):
        name = f"roi_head.bbox_roi_extractor.roi_layers.{level}"
        entries |= layer(f"{name}.offset_fc.0", 1024, 256 * 49)
        entries |= layer(f"{name}.offset_fc.2", 1024, 1024)
        entries |= layer(f"{name}.offset_fc.4", 2 * 49, 1024)
        if modulated:
            entries |= layer(f"{name}.mask_fc.0", 1024, 256 * 49)
            entries |= layer(f"{name}.mask_fc.2", 49, 1024)
    return {name: torch.empty(shape, device="meta") for name, shape in entries.items()}
