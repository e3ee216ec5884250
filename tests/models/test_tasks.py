"""What a model tells of its tasks, and what it is told of keypoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from detector.backbones.resnet import ResNet
from detector.config.build import build
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.keypoint_branch import KeypointBranch
from detector.heads.roi import RoIHead
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.runs.parts import build_model, require_buildable
from detector.structures import FeatureSpec, KeypointSchema
from tests.configurations import plain
from tests.extensions.branch import Centers
from tests.samples import small_fcos

TASKS = {
    "fcos_small": ("bbox",),
    "faster_rcnn_small": ("bbox",),
    "mask_rcnn": ("bbox", "segm"),
    "mask_rcnn_small": ("bbox", "segm"),
    "keypoint_rcnn": ("bbox", "keypoints"),
    "keypoint_rcnn_small": ("bbox", "keypoints"),
}
FACE = KeypointSchema(names=("left", "right", "top"), sigmas=(0.05, 0.05, 0.05))
LINE = KeypointSchema(names=("start", "end"), sigmas=(0.05, 0.05))


def make(name: str) -> Callable[..., Detector]:
    return build(plain("train", f"model={name}", "output_dir=x")["model"])


def keypoints_of(model: Detector) -> int:
    (branch,) = (module for module in model.modules() if isinstance(module, KeypointBranch))
    return branch.num_keypoints


@pytest.mark.parametrize("name", TASKS)
def test_a_model_tells_its_tasks(name: str) -> None:
    assert require_buildable(make(name)) == TASKS[name]


def test_a_users_branch_may_have_no_task_and_take_no_number_of_keypoints() -> None:
    with torch.device("meta"):
        model = faster_rcnn(schemas=(FACE,), point=Centers)
    assert model.tasks == ("bbox",)


def test_both_branches_at_once() -> None:
    words = ["model=mask_rcnn", "+model/head/roi/branch@model.head.roi.branches.keypoint=keypoint"]
    tasks = require_buildable(build(plain("train", *words, "output_dir=x")["model"]))
    assert tasks == ("bbox", "segm", "keypoints")


def test_the_data_decides_the_number_of_keypoints() -> None:
    with torch.device("meta"):
        schemas = (None, LINE, FACE)
        assert keypoints_of(build_model(make("keypoint_rcnn"), 3, keypoint_schemas=schemas)) == 3
        assert keypoints_of(build_model(make("keypoint_rcnn"), 3)) == 17
        assert keypoints_of(faster_rcnn(schemas=schemas, keypoint=KeypointBranch)) == 3


def test_heads_and_models_without_keypoints_are_not_told() -> None:
    model = build_detector(
        backbone=ResNet(18), neck=FPN, head=FCOSHead, num_classes=1, keypoint_schemas=(FACE,)
    )
    assert model.tasks == ("bbox",)
    assert build_model(lambda num_classes: small_fcos(num_classes=num_classes), 1, keypoint_schemas=(FACE,))


def faster_rcnn(*, schemas: Sequence[KeypointSchema | None], **branches: Any) -> Detector:
    return build_detector(
        backbone=ResNet(18, out_stages=(2, 3, 4, 5)),
        neck=partial(FPN, extra_levels="maxpool"),
        head=partial(FasterRCNNHead, roi=partial(RoIHead, branches=branches)),
        num_classes=3,
        keypoint_schemas=tuple(schemas),
    )


def test_a_users_second_stage_may_take_no_number_of_keypoints() -> None:
    def roi(features: Sequence[FeatureSpec], num_classes: int) -> RoIHead:
        return RoIHead(features, num_classes)

    head = FasterRCNNHead([FeatureSpec(f"p{i}", 8, 2**i) for i in (2, 3)], 2, roi=roi, num_keypoints=3)
    assert head.tasks == ("bbox",)
