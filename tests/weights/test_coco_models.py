"""`model=fcos_coco` and its siblings are the models that torchvision published with weights of COCO."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import detection

from detector.config.build import build
from detector.config.paths import config_dir
from detector.layers.deform import DeformConv2d
from detector.models.detector import Detector
from detector.weights import detectors
from detector.weights.files import StoredWeights
from tests.configurations import plain
from tests.weights.foreign_states import hollow

ENUMS: dict[str, tuple[Callable[..., nn.Module], Any]] = {
    "fcos_coco": (detection.fcos_resnet50_fpn, detection.FCOS_ResNet50_FPN_Weights.COCO_V1),
    "faster_rcnn_coco": (
        detection.fasterrcnn_resnet50_fpn,
        detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    ),
    "faster_rcnn_v2_coco": (
        detection.fasterrcnn_resnet50_fpn_v2,
        detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    ),
    "mask_rcnn_coco": (detection.maskrcnn_resnet50_fpn, detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1),
    "mask_rcnn_v2_coco": (
        detection.maskrcnn_resnet50_fpn_v2,
        detection.MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    ),
    "keypoint_rcnn_coco": (
        detection.keypointrcnn_resnet50_fpn,
        detection.KeypointRCNN_ResNet50_FPN_Weights.COCO_V1,
    ),
}


@pytest.fixture(params=ENUMS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build_model(*overrides: str, stored: StoredWeights) -> Detector:
    """Build the configured model for two classes of COCO; `stored` is what its published weights hold."""
    make = build(plain("train", "data=coco", "data.root=x", "output_dir=x", *overrides)["model"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "read_weights", lambda *_, **__: stored)
        return make(num_classes=2, class_names=("person", "car"))


def published(name: str) -> StoredWeights:
    make, _ = ENUMS[name]
    with torch.device("meta"):
        model = make(weights=None, weights_backbone=None)
    return StoredWeights(hollow(model.state_dict()), config={})


def test_it_is_the_model_of_the_weights(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """All entries fit, and no option is reported that the weights were trained with."""
    with caplog.at_level(logging.INFO):
        build_model(f"model={name}", stored=published(name))
    rows = "for 2 of 2 classes (person, car)"
    if name == "keypoint_rcnn_coco":  # COCO has keypoints of persons only
        rows = "for 1 of 2 classes (person); 1 start anew (car)"
    assert rows in caplog.text
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [message for message in warnings if rows not in message] == []


def test_deformable_stages_are_an_override() -> None:
    model = build_model("model=fcos_coco", "model.backbone.deform.stages=[5]", stored=published("fcos_coco"))
    replaced = [name for name, layer in model.named_modules() if isinstance(layer, DeformConv2d)]
    assert replaced == [f"backbone.layer4.{block}.conv2" for block in range(3)]


def test_first_comment_gives_the_ap_and_the_size_of_the_weights(name: str) -> None:
    _, weights = ENUMS[name]
    text = (config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8").replace("\n# ", " ")
    assert f"{weights.meta['_metrics']['COCO-val2017']['box_map']} AP" in text
    assert f"({weights.meta['_file_size']:.0f} MB)" in text
