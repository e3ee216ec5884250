"""What training keeps for the backward pass, against values computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detector.backbones.resnet import ResNet
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.keypoint_branch import KeypointBranch
from detector.heads.mask_branch import MaskBranch
from detector.heads.roi import RoIHead
from detector.heads.roi_branch import RoIBranch
from detector.heads.rpn import RPN, ProposalLimits
from detector.layers.deform import DeformableStages
from detector.layers.norms import NormKind
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.profiling.activations import activation_bytes, saved_bytes


def fcos(norm: NormKind = "frozen_batch", **deform: Any) -> Detector:
    torch.manual_seed(0)
    backbone = ResNet(18, norm=norm, deform=DeformableStages(**deform))
    return build_detector(backbone=backbone, neck=partial(FPN, out_channels=32), head=FCOSHead, num_classes=3)


def faster_rcnn(*branches: Callable[..., RoIBranch], **deform: Any) -> Detector:
    torch.manual_seed(0)
    return build_detector(
        backbone=ResNet(18, deform=DeformableStages(**deform), out_stages=(2, 3, 4, 5)),
        neck=partial(FPN, extra_levels="maxpool", out_channels=32),
        head=partial(
            FasterRCNNHead,
            rpn=partial(RPN, limits=ProposalLimits(post_nms_top_n_train=20)),
            roi=partial(
                RoIHead,
                width=32,
                batch_size_per_image=16,
                branches={str(number): branch for number, branch in enumerate(branches)},
            ),
        ),
        num_classes=3,
    )


def test_each_tensor_counts_once_and_weights_do_not() -> None:
    """The linear layers keep what they get; sigmoid keeps its output, which the second layer keeps anyway."""
    module = nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 7))
    x = torch.randn(4, 3)
    assert saved_bytes(lambda: module(x), excluding=module) == 4 * (4 * 3 + 4 * 5)


def test_a_part_counts_as_the_whole_that_it_keeps_alive() -> None:
    weight = nn.Linear(3, 1, bias=False)
    whole = torch.randn(10, 3)
    assert saved_bytes(lambda: weight(whole[2:4]), excluding=weight) == 4 * 10 * 3


def test_what_comes_after_what_was_freed_is_not_taken_for_it() -> None:
    """Later tensors get the memory of earlier ones, since nothing is kept in fact."""
    scale = nn.Linear(64, 64, bias=False)

    def step() -> None:
        for _ in range(5):
            scale(torch.ones(64, 64))

    assert saved_bytes(step, excluding=scale) == 5 * 4 * 64 * 64


def test_nothing_is_kept_without_gradients() -> None:
    module = nn.Linear(3, 5)

    @torch.no_grad()
    def infer() -> Tensor:
        return module(torch.randn(4, 3))

    assert saved_bytes(infer, excluding=module) == 0


def test_frozen_stages_keep_nothing() -> None:
    trained, frozen = fcos(), fcos()
    for part in (frozen.backbone.conv1, frozen.backbone.layer1):
        part.requires_grad_(False)
    size = (64, 64)
    assert activation_bytes(frozen, image_size=size) < activation_bytes(trained, image_size=size)


@pytest.mark.parametrize("make", [fcos, faster_rcnn])
@pytest.mark.parametrize(
    "deform", [{"modulation": "none"}, {"modulation": "doubled_sigmoid"}, {"version": 3}]
)
def test_a_deformable_model_keeps_more_than_its_regular_twin(
    make: Callable[..., Detector], deform: dict[str, Any]
) -> None:
    kept = [
        activation_bytes(make(stages=stages, **deform), image_size=(64, 96)) for stages in ((), (5,), (4, 5))
    ]
    assert kept == sorted(set(kept))


def test_a_backend_for_gpus_counts_as_the_one_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.ops.deform_conv.triton_launch.INTERPRETED", False)
    by_triton, by_cpu = (
        activation_bytes(fcos(stages=(5,), backend=backend), image_size=(64, 64))
        for backend in ("triton", "gather")
    )
    assert by_triton == by_cpu


def test_it_grows_with_the_image_and_is_the_same_each_time() -> None:
    model = faster_rcnn()
    small, same, large = (activation_bytes(model, image_size=(side, 64)) for side in (64, 64, 128))
    assert small == same < large


def test_batch_norm_takes_an_image_of_one_cell() -> None:
    assert activation_bytes(fcos(norm="batch"), image_size=(32, 32)) > 0


def test_the_model_and_the_random_numbers_are_left_as_they_are() -> None:
    model = fcos(norm="batch").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    activation_bytes(model, image_size=(64, 64))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_branches_of_masks_and_keypoints_keep_more() -> None:
    boxes, masks, keypoints = (
        activation_bytes(faster_rcnn(*branches), image_size=(64, 64))
        for branches in ((), (MaskBranch,), (partial(KeypointBranch, num_keypoints=5),))
    )
    assert masks > boxes
    assert keypoints > boxes
