"""Floating-point operations, against values computed by hand."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, cast

import pytest
import torch

from detector.backbones.resnet import ResNet
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.head import Head
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN, ProposalLimits
from detector.layers.deform import DeformableStages
from detector.layers.roi_pooling import DeformRoIPool, RoIAlign
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.profiling.flops import count_flops


def fcos(*, depth: Literal[18, 34, 50, 101] = 18, **deform: Any) -> Detector:
    stages = DeformableStages(**deform)
    with torch.device("meta"):
        return build_detector(backbone=ResNet(depth, deform=stages), neck=FPN, head=FCOSHead, num_classes=80)


def test_a_resnet_costs_what_is_published() -> None:
    """4.09 G multiply-adds at 224 x 224 (torchvision's table), of which 2.05 M are the classifier's."""
    with torch.device("meta"):
        backbone = ResNet(50)

    class Nothing(Head[Any]):
        num_classes, out_features = 0, ()

        def forward(self, features: Any, image_sizes: Any = None) -> Any:
            return features

        def loss(self, outputs: Any, targets: Any) -> Any:
            return {}

        def predict(self, outputs: Any) -> Any:
            raise AssertionError("nothing is detected here")

        def candidates(self, outputs: Any) -> Any:
            raise AssertionError("nothing is detected here")

    model = Detector(backbone, Nothing(), Nothing())
    counts = count_flops(model, image_size=(224, 224))
    assert counts.matrix == pytest.approx(2 * (4.0893e9 - 2.05e6), rel=1e-3)
    assert counts.sampling == 0


def test_images_are_padded_as_batches_are() -> None:
    model = fcos()
    assert count_flops(model, image_size=(97, 64)) == count_flops(model, image_size=(128, 64))
    assert count_flops(model, image_size=(128, 64)).matrix > count_flops(model, image_size=(96, 64)).matrix


@pytest.mark.parametrize("backend", ["auto", "gather", "torchvision", "triton"])
@pytest.mark.parametrize(("modulation", "extra"), [("none", 18), ("sigmoid", 27)])
def test_a_deformable_layer_costs_its_convolution_its_offsets_and_its_samples(
    modulation: str, extra: int, backend: str
) -> None:
    """C5 of ResNet-18 has two such layers of 512 channels, at stride 32."""
    plain, deformable = (
        count_flops(fcos(stages=stages, modulation=modulation, backend=backend), image_size=(128, 256))
        for stages in ((), (5,))
    )
    positions = 4 * 8
    assert deformable.matrix - plain.matrix == 2 * 2 * positions * 9 * 512 * extra
    operations = 8 if modulation == "sigmoid" else 7
    assert deformable.sampling == 2 * positions * 9 * 512 * operations
    assert deformable.total > plain.total


@pytest.mark.parametrize("version", [3, 4])
def test_a_depthwise_layer_costs_its_projections_its_branch_and_its_samples(version: int) -> None:
    """In the place of two convolutions of 512 channels; the branch's own is depth-wise."""
    plain, deformable = (
        count_flops(fcos(**options), image_size=(128, 256))
        for options in cast(Any, ({}, {"stages": (5,), "version": version, "offset_groups": 4}))
    )
    positions = 4 * 8
    layer = 2 * positions * (2 * 512 * 512 + 9 * 512 + 512 * 3 * 4 * 9)
    assert deformable.matrix - plain.matrix == 2 * (layer - 2 * positions * 9 * 512 * 512)
    assert deformable.sampling == 2 * positions * 9 * 512 * 9


@pytest.mark.parametrize(
    ("pooling", "of_branch"),
    [
        (RoIAlign, 0),
        (partial(DeformRoIPool, width=16), 2 * (2 * 256 * 49 * 16 + 16 * 16 + 16 * 98 + 16 * 49)),
    ],
)
def test_the_second_stage_counts_its_regions(pooling: Any, of_branch: int) -> None:
    def flops(regions: int) -> int:
        with torch.device("meta"):
            model = build_detector(
                backbone=ResNet(18, out_stages=(2, 3, 4, 5)),
                neck=partial(FPN, extra_levels="maxpool"),
                head=partial(
                    FasterRCNNHead,
                    rpn=partial(RPN, limits=ProposalLimits(post_nms_top_n_test=regions)),
                    roi=partial(RoIHead, width=128, pooling=pooling),
                ),
                num_classes=9,
            )
        return count_flops(model, image_size=(64, 64)).matrix

    of_region = 2 * (256 * 49 * 128 + 128 * 128 + 128 * 10 + 128 * 40)
    assert flops(30) - flops(10) == 20 * (of_region + of_branch)


def test_the_model_is_left_as_it_is() -> None:
    deform = DeformableStages(stages=(5,), backend="gather")
    model = build_detector(backbone=ResNet(18, deform=deform), neck=FPN, head=FCOSHead, num_classes=3).train()
    count_flops(model, image_size=(64, 64))
    assert model.training
    assert cast(Any, model.backbone).layer4[0].conv2.backend == "gather"
    assert all(p.device.type == "cpu" for p in model.parameters())
