"""Constructors from a configuration: built anew by each call, with or without their pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch

from detector.backbones import ResNet
from detector.config.build import build
from detector.config.errors import ConfigError
from detector.config.targets import allowing
from detector.factory import Factory, target_and_arguments, without_weights
from detector.heads import FCOSHead
from detector.models import build_detector
from detector.necks import FPN
from detector.runs.parts import require_buildable
from detector.structures import FeatureSpec

RESNET = {"_target_": "detector.backbones.ResNet", "depth": 18, "weights": "x.pth"}
MODEL = {
    "_target_": "detector.models.build_detector",
    "_partial_": True,
    "backbone": RESNET,
    "neck": {"_target_": "detector.necks.FPN", "_partial_": True, "out_channels": 16},
    "head": {"_target_": "detector.heads.FCOSHead", "_partial_": True},
}


def test_each_call_builds_the_inner_parts_anew() -> None:
    make = without_weights(build(MODEL))
    first, second = (make(num_classes=2) for _ in range(2))
    assert first.backbone is not second.backbone


def test_only_files_of_weights_are_left_out() -> None:
    make = without_weights(Factory(dict, {"weights": "a.pth", "loss": {"weights": [1, 2]}}, dict))
    assert make() == {"weights": None, "loss": {"weights": [1, 2]}}
    assert without_weights(partial(dict, weights="a.pth", depth=18))() == {"weights": None, "depth": 18}
    assert without_weights(dict) is dict


def test_target_and_arguments_of_each_kind() -> None:
    factories: list[Any] = [Factory(dict, {"a": 1}, dict), partial(dict, a=1)]
    assert [target_and_arguments(make) for make in factories] == [(dict, {"a": 1})] * 2
    assert target_and_arguments(dict) == (dict, {})


def test_a_part_that_reads_numbers_is_buildable() -> None:
    class ReadsNumbers(FPN):
        def __init__(self, features: Sequence[FeatureSpec]) -> None:
            super().__init__(features, out_channels=16)
            self.rates = [x.item() for x in torch.linspace(0, 0.1, len(features))]

    make = partial(build_detector, backbone=ResNet(depth=18), neck=ReadsNumbers, head=FCOSHead)
    before = torch.random.get_rng_state()
    require_buildable(make)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_factory_is_no_way_around_the_list_of_targets() -> None:
    with allowing(["collections.Counter"]):
        own = {"_target_": "collections.Counter"}
        make = build({**MODEL, "backbone": own})
    with pytest.raises(ConfigError, match=r"collections\.Counter: not allowed"):
        make(num_classes=2)


@pytest.mark.parametrize(
    "target",
    [
        "detector.coco.layouts._Layout",
        "detector.data.datamodule._log",
        "detector.ops.deform_conv.geometry.Geometry",
    ],
)
def test_inner_names_of_the_package_are_no_targets(target: str) -> None:
    with pytest.raises(ConfigError, match=r"not allowed|not a class|has no"):
        build({"_target_": target})
