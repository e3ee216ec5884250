"""Checkpoints of other projects: names and layouts to ours."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import detection, resnet18

from detector.backbones.resnet import ResNet
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN
from detector.layers.deform import DeformableStages, DeformConv2d, Modulation
from detector.layers.roi_pooling import DeformRoIPool
from detector.models.detector import build_detector
from detector.necks.fpn import FPN
from detector.structures import FeatureSpec
from detector.weights import detectors as pretrained
from detector.weights.files import StoredWeights
from detector.weights.foreign import (
    convert,
    from_detectron2,
    from_mmdetection,
    from_torchvision,
    to_torchvision,
)
from tests.weights.foreign_states import (
    CLASSES,
    MODULATED,
    STAGES,
    detectron2_faster_rcnn,
    dry,
    faster_rcnn,
    fcos,
    hollow,
    layer,
    mmdetection_backbone,
    mmdetection_faster_rcnn,
    mmdetection_fcos,
    mmdetection_pooling,
    require_fit,
    small,
)

# --- torchvision


def test_names_map_to_torchvision_and_back() -> None:
    with torch.device("meta"):
        theirs = {
            "faster_rcnn": detection.fasterrcnn_resnet50_fpn(weights_backbone=None, num_classes=CLASSES + 1),
            "fcos": detection.fcos_resnet50_fpn(weights_backbone=None, num_classes=CLASSES),
        }
    for name, ours in (("faster_rcnn", dry(faster_rcnn, norm="batch")), ("fcos", dry(fcos, norm="batch"))):
        expected = theirs[name].state_dict()
        assert from_torchvision(expected).keys() == ours.state_dict().keys()
        assert to_torchvision(from_torchvision(expected)).keys() == expected.keys()
        assert convert(expected).state.keys() == ours.state_dict().keys()


def test_version_2_is_a_choice_of_options() -> None:
    with torch.device("meta"):
        theirs = detection.fasterrcnn_resnet50_fpn_v2(weights_backbone=None, num_classes=CLASSES + 1)
        roi = partial(RoIHead, num_convs=4, num_linear=1, norm="batch")
        ours = build_detector(
            backbone=ResNet(50, out_stages=(2, 3, 4, 5), norm="batch"),
            neck=partial(FPN, extra_levels="maxpool", norm="batch"),
            head=partial(FasterRCNNHead, rpn=partial(RPN, num_convs=2), roi=roi),
            num_classes=CLASSES,
        )
    require_fit(from_torchvision(theirs.state_dict()), ours)


def test_names_of_the_published_faster_rcnn_are_of_an_older_version() -> None:
    assert from_torchvision(
        {
            "backbone.fpn.inner_blocks.0.weight": torch.zeros(1),
            "backbone.fpn.layer_blocks.3.bias": torch.zeros(1),
            "rpn.head.conv.weight": torch.zeros(1),
        }
    ).keys() == {
        "neck.inner_blocks.0.0.weight",
        "neck.layer_blocks.3.0.bias",
        "head.rpn.head.conv.0.0.weight",
    }


# --- loading into other classes and deformable stages


def torchvision_small() -> detection.FasterRCNN:
    """torchvision's Faster R-CNN with the sizes of `small`, for the ids of COCO."""
    torch.manual_seed(1)
    stages = {f"layer{n}": str(n - 1) for n in range(1, 5)}
    backbone = detection.backbone_utils.BackboneWithFPN(resnet18(), stages, [64, 128, 256, 512], 8)
    return detection.FasterRCNN(
        backbone,
        box_head=detection.faster_rcnn.TwoMLPHead(8 * 49, 8),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(8, 91),
    )


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "fasterrcnn.pth"
    torch.save(torchvision_small().state_dict(), path)
    return path


def test_80_classes_take_the_rows_of_their_ids(
    torchvision_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = torch.load(torchvision_file, weights_only=True)
    actual = small(80, weights=str(torchvision_file)).state_dict()
    scores, boxes = (f"box_predictor.{layer}.weight" for layer in ("cls_score", "bbox_pred"))
    got, expected = actual[f"head.roi_heads.{scores}"], theirs[f"roi_heads.{scores}"]
    assert torch.equal(got[0], expected[0])  # background
    assert torch.equal(got[80], expected[90])  # toothbrush
    assert torch.equal(got[12], expected[13])  # stop sign: 12 is no class
    got, expected = actual[f"head.roi_heads.{boxes}"], theirs[f"roi_heads.{boxes}"]
    assert torch.equal(got[4 * 80 :], expected[4 * 90 :])
    assert "the 80 classes of this model start as COCO's 80" in caplog.text


def test_published_weights_without_epsilon_give_torchvisions_features(
    torchvision_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = torchvision_small()
    state = torch.load(torchvision_file, weights_only=True)
    state["backbone.body.bn1.running_var"].fill_(1e-4)  # where an epsilon of 1e-5 matters
    theirs.load_state_dict(state)
    detection._utils.overwrite_eps(theirs, 0.0)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-30  # torch 2.11 refuses 0
    monkeypatch.setattr(pretrained, "read_weights", lambda *own_names, **options: StoredWeights(state))
    ours = small(80, weights="fasterrcnn_resnet50_fpn.COCO_V1").eval()
    x = torch.randn(1, 3, 64, 64)
    expected = list(theirs.eval().backbone.body(x).values())
    for a, b in zip(ours.backbone(x), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.detach().abs().max()))


def test_checkpoint_of_ours_starts_another_run(tmp_path: Path) -> None:
    """The weights that were evaluated: of the average, where there is one."""
    state = small().state_dict()
    content = {f"averaged.model.{k}": v + 1 if v.is_floating_point() else v for k, v in state.items()}
    content |= {f"model.{k}": v for k, v in state.items()}
    torch.save({"state_dict": content, "detector": {"weights": "averaged.model."}}, tmp_path / "best.ckpt")
    actual = small(weights=str(tmp_path / "best.ckpt")).state_dict()
    assert torch.equal(actual["backbone.conv1.weight"], state["backbone.conv1.weight"] + 1)


def test_new_classes_and_offsets_start_anew_and_are_reported(
    torchvision_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small(3, weights=str(torchvision_file), deform=DeformableStages(stages=(5,)))
    theirs = torch.load(torchvision_file, weights_only=True)
    weight = "layer4.0.conv2.weight"
    assert torch.equal(model.state_dict()[f"backbone.{weight}"], theirs[f"backbone.body.{weight}"])
    assert "4 entries of the class layers are for other classes" in caplog.text
    assert "4 entries of offset branches are new" in caplog.text
    assert model.state_dict()["backbone.layer4.0.conv2.offset.weight"].abs().max() == 0


def test_weights_of_another_model_are_an_error(torchvision_file: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the weights of a Faster R-CNN; this model is a FCOS\. .*model=faster_rcnn"
    ):
        pretrained.load_detector_weights(dry(fcos), str(torchvision_file))


def test_unknown_name_lists_what_is_published() -> None:
    with pytest.raises(ValueError, match=r"model\.weights=fasterrcnn: .*fcos_resnet50_fpn\.COCO_V1"):
        small(weights="fasterrcnn")


# --- MMDetection and Detectron2


def with_values(shapes: dict[str, Any], *names: str) -> dict[str, Tensor]:
    """A hollow state, with random numbers in these entries."""
    random = torch.Generator().manual_seed(2)
    return hollow(shapes) | {name: torch.randn(shapes[name], generator=random) for name in names}


def test_mmdetection_faster_rcnn() -> None:
    classes, boxes = "roi_head.bbox_head.fc_cls.bias", "roi_head.bbox_head.fc_reg.weight"
    offset = "backbone.layer2.1.conv2.conv_offset.weight"
    theirs = with_values(mmdetection_faster_rcnn(), classes, boxes, offset)
    ours = from_mmdetection(theirs)
    require_fit(ours, dry(faster_rcnn, deform=MODULATED))
    assert convert(theirs).state.keys() == ours.keys()
    actual = ours["head.roi_heads.box_predictor.cls_score.bias"]
    assert torch.equal(actual, torch.cat([theirs[classes][-1:], theirs[classes][:-1]]))  # background last
    assert torch.equal(ours["head.roi_heads.box_predictor.bbox_pred.weight"][4:], theirs[boxes])
    assert torch.equal(ours["backbone.layer2.1.conv2.offset.weight"], theirs[offset])


def test_mmdetection_without_modulation() -> None:
    shapes = {
        name: shape
        for name, shape in mmdetection_faster_rcnn().items()
        if "conv_offset" not in name and not name.startswith("backbone.")
    }
    theirs = hollow(shapes | mmdetection_backbone("conv2.conv_offset", channels=18))
    model = dry(faster_rcnn, deform=DeformableStages(stages=STAGES, modulation="none"))
    require_fit(from_mmdetection(theirs), model)


@pytest.mark.parametrize(("modulation", "modulated"), [("none", False), ("sigmoid", True)])
def test_mmdetection_pooling(modulation: Modulation, modulated: bool) -> None:
    """Names and shapes of all of its parameters."""
    features = [FeatureSpec(f"p{i}", 256, 2**i) for i in range(2, 6)]
    with torch.device("meta"):
        ours = RoIHead(features, CLASSES, pooling=partial(DeformRoIPool, modulation=modulation)).state_dict()
    prefix = "head.roi_heads."
    expected = {f"{prefix}{k}": v.shape for k, v in ours.items() if k.startswith("pooling.")}
    theirs = from_mmdetection(mmdetection_pooling(modulated=modulated))
    assert {k: v.shape for k, v in theirs.items()} == expected


def test_mmdetection_fcos() -> None:
    norm, level = "bbox_head.reg_convs.3.gn.weight", "neck.fpn_convs.4.conv.weight"
    theirs = with_values(mmdetection_fcos(), norm, level)
    ours = from_mmdetection(theirs)
    require_fit(ours, dry(fcos, deform=MODULATED, level_scales=True))
    assert convert(theirs).state.keys() == ours.keys()
    assert torch.equal(ours["head.regression_head.conv.10.weight"], theirs[norm])
    assert torch.equal(ours["neck.extra_blocks.p7.weight"], theirs[level])


def test_detectron2_faster_rcnn() -> None:
    theirs = hollow(detectron2_faster_rcnn())
    ours = from_detectron2(theirs)
    require_fit(ours, dry(faster_rcnn, deform=MODULATED))
    assert convert(theirs).state.keys() == ours.keys()


def test_mmdetection_towers_may_be_deformable() -> None:
    """dcn_on_last_conv."""
    theirs = mmdetection_fcos()
    for tower in ("cls", "reg"):
        theirs |= layer(f"bbox_head.{tower}_convs.3.conv.conv_offset", 27, 256, 3, 3)
    offset = "bbox_head.reg_convs.3.conv.conv_offset.bias"
    state = with_values(theirs, offset)
    with torch.device("meta"):
        model = build_detector(
            backbone=ResNet(50, deform=MODULATED),
            neck=FPN,
            head=partial(
                FCOSHead,
                level_scales=True,
                deformable_convs=1,
                deform=partial(DeformConv2d, modulation="sigmoid"),
            ),
            num_classes=CLASSES,
        )
    require_fit(from_mmdetection(state), model)
    assert torch.equal(model.state_dict()["head.regression_head.conv.9.offset.bias"], state[offset])


MEAN_RGB, STD_RGB = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE = (MEAN_RGB[::-1], (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("mean", "std"), [(None, None), CAFFE, (MEAN_RGB[::-1], STD_RGB[::-1]), (MEAN_RGB, STD_RGB)]
)
def test_detectron2_images(mean: Any, std: Any) -> None:
    """The same image, as Detectron2 sees it and as we do, gives the same first response."""
    stem = "backbone.bottom_up.stem.conv1.weight"
    theirs = with_values(detectron2_faster_rcnn(), stem)
    for name, value in (("pixel_mean", mean), ("pixel_std", std)):
        del theirs[name]
        if value is not None:
            theirs[name] = torch.tensor(value).view(3, 1, 1)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((mean, std) if mean else CAFFE))
    _assert_same_response(convert(theirs).state, theirs[stem], mean, std)


def test_caffe_images_by_choice() -> None:
    stem = "backbone.conv1.weight"
    theirs = with_values(mmdetection_fcos(), stem)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in CAFFE)
    _assert_same_response(convert(theirs, images="caffe").state, theirs[stem], mean, std)


def _assert_same_response(ours: dict[str, Tensor], weight: Tensor, mean: Tensor, std: Tensor) -> None:
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    theirs_sees = image.flip(1) if mean[0, 0] < mean[0, 2] else image
    expected = torch.conv2d((theirs_sees - mean) / std, weight)
    seen = small().normalize(image, torch.tensor([[32, 32]]))
    torch.testing.assert_close(
        torch.conv2d(seen, ours["backbone.conv1.weight"]), expected, rtol=1e-4, atol=1e-2
    )
