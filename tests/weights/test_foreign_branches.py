"""Masks and keypoints in checkpoints of other projects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import detection

from detector.backbones.resnet import ResNet
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.keypoint_branch import KeypointBranch
from detector.heads.mask_branch import MaskBranch
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN
from detector.layers.roi_pooling import DeformRoIPool
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.weights.foreign import convert, from_mmdetection, from_torchvision, to_torchvision
from tests.weights.foreign_states import (
    CLASSES,
    MODULATED,
    detectron2_faster_rcnn,
    dry,
    hollow,
    layer,
    load,
    mmdetection_faster_rcnn,
    mmdetection_pooling,
    require_fit,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # no values are loaded

MASKS = "head.roi_heads.branches.mask."
LOGITS = f"{MASKS}mask_predictor.mask_fcn_logits."


def rcnn(**branches: Any) -> Detector:
    """ResNet-50, deformable as the foreign checkpoints are."""
    return build_detector(
        backbone=ResNet(50, out_stages=(2, 3, 4, 5), deform=MODULATED),
        neck=partial(FPN, extra_levels="maxpool"),
        head=partial(FasterRCNNHead, roi=partial(RoIHead, branches=branches)),
        num_classes=CLASSES,
    )


def plain(*, version: int = 1, **branches: Any) -> Detector:
    """One of torchvision's models, in its two versions."""
    neck, rpn, roi = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    if version == 2:
        neck, rpn, roi = (
            {"norm": "batch"},
            {"num_convs": 2},
            {"num_convs": 4, "num_linear": 1, "norm": "batch"},
        )
    return build_detector(
        backbone=ResNet(50, out_stages=(2, 3, 4, 5), norm="batch"),
        neck=partial(FPN, extra_levels="maxpool", **neck),
        head=partial(
            FasterRCNNHead,
            rpn=partial(RPN, **rpn),
            roi=partial(RoIHead, branches=branches, **roi),
        ),
        num_classes=CLASSES,
    )


NORMED = partial(MaskBranch, norm="batch")
TORCHVISION: dict[str, tuple[Callable[..., nn.Module], Callable[[], Detector]]] = {
    "mask": (detection.maskrcnn_resnet50_fpn, partial(plain, mask=MaskBranch)),
    "mask v2": (detection.maskrcnn_resnet50_fpn_v2, partial(plain, version=2, mask=NORMED)),
    "keypoint": (detection.keypointrcnn_resnet50_fpn, partial(plain, keypoint=KeypointBranch)),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_map_to_torchvision_and_back(name: str) -> None:
    make, ours = TORCHVISION[name]
    with torch.device("meta"):
        theirs = make(weights=None, weights_backbone=None, num_classes=CLASSES + 1).state_dict()
    require_fit(from_torchvision(theirs), dry(ours))
    assert to_torchvision(from_torchvision(theirs)).keys() == theirs.keys()
    assert convert(theirs).state.keys() == from_torchvision(theirs).keys()


def test_names_of_the_published_mask_rcnn_are_of_an_older_version() -> None:
    older = {f"roi_heads.mask_head.mask_fcn{n}.weight": torch.zeros(1) for n in range(1, 5)}
    assert [*from_torchvision(older)] == [f"{MASKS}mask_head.{n}.0.weight" for n in range(4)]


def mmdetection_masks(rows: int = CLASSES) -> dict[str, Any]:
    head = "roi_head.mask_head"
    entries: dict[str, Any] = {}
    for n in range(4):
        entries |= layer(f"{head}.convs.{n}.conv", 256, 256, 3, 3)
    return entries | layer(f"{head}.upsample", 256, 256, 2, 2) | layer(f"{head}.conv_logits", rows, 256, 1, 1)


def detectron2_masks() -> dict[str, Any]:
    head = "roi_heads.mask_head"
    entries: dict[str, Any] = {}
    for n in range(1, 5):
        entries |= layer(f"{head}.mask_fcn{n}", 256, 256, 3, 3)
    return entries | layer(f"{head}.deconv", 256, 256, 2, 2) | layer(f"{head}.predictor", CLASSES, 256, 1, 1)


def detectron2_keypoints(count: int = 17) -> dict[str, Any]:
    head = "roi_heads.keypoint_head"
    entries: dict[str, Any] = {}
    for n in range(1, 9):
        entries |= layer(f"{head}.conv_fcn{n}", 512, 256 if n == 1 else 512, 3, 3)
    return entries | {
        f"{head}.score_lowres.weight": (512, count, 4, 4),
        f"{head}.score_lowres.bias": (count,),
    }


@pytest.mark.parametrize(
    ("state", "logits"),
    [
        (mmdetection_faster_rcnn() | mmdetection_masks(), "roi_head.mask_head.conv_logits."),
        (detectron2_faster_rcnn() | detectron2_masks(), "roi_heads.mask_head.predictor."),
    ],
    ids=["mmdetection", "detectron2"],
)
def test_mask_rcnn_of_another_project(state: dict[str, Any], logits: str) -> None:
    theirs = hollow(state)
    theirs[f"{logits}weight"] = torch.randn(CLASSES, 256, 1, 1)
    ours = convert(theirs).state
    require_fit(ours, dry(rcnn, mask=MaskBranch))
    background, *classes = ours[f"{LOGITS}weight"]
    assert background.abs().sum() == 0  # they have none
    assert torch.equal(torch.stack(classes), theirs[f"{logits}weight"])


def test_one_mask_for_all_classes_stays_one() -> None:
    theirs = hollow(mmdetection_faster_rcnn() | mmdetection_masks(rows=1))
    require_fit(convert(theirs).state, dry(rcnn, mask=partial(MaskBranch, class_agnostic=True)))


def test_deformable_pooling_of_mmdetections_masks() -> None:
    pooling = partial(DeformRoIPool, modulation="none")
    own = dry(rcnn, mask=partial(MaskBranch, pooling=pooling)).state_dict()
    theirs = {
        name.replace("bbox_roi_extractor", "mask_roi_extractor"): value
        for name, value in mmdetection_pooling(modulated=False).items()
    }
    expected = {name for name in own if name.startswith(f"{MASKS}pooling.")}
    assert from_mmdetection(theirs).keys() == expected


def test_keypoint_rcnn_of_detectron2() -> None:
    theirs = hollow(detectron2_faster_rcnn() | detectron2_keypoints())
    require_fit(convert(theirs).state, dry(rcnn, keypoint=KeypointBranch))


def test_options_of_the_branch_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    load(dry(rcnn, mask=MaskBranch), mmdetection_faster_rcnn() | mmdetection_masks())
    for option in ("head.roi.aligned=true", "head.roi.branches.mask.aligned=true"):
        assert f"model.{option}" in caplog.text
    assert "branches.keypoint" not in caplog.text


def test_another_number_of_keypoints_starts_anew(caplog: pytest.LogCaptureFixture) -> None:
    theirs = detectron2_faster_rcnn() | detectron2_keypoints(5)
    del theirs["pixel_mean"], theirs["pixel_std"]  # a hollow deviation would be 0
    load(dry(rcnn, keypoint=KeypointBranch), theirs)
    assert "2 entries of the keypoint layers are for another number" in caplog.text


def test_a_model_without_masks_is_another_model() -> None:
    with pytest.raises(ValueError, match=r"of a Faster R-CNN; this model is a Mask R-CNN\. .*=faster_rcnn"):
        load(dry(rcnn, mask=MaskBranch), mmdetection_faster_rcnn())
