"""Checkpoints of other projects: names and layouts to ours."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from detector.backbones.resnet import ResNet, Stage
from detector.heads.anchors import AnchorGenerator
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.heads.roi import RoIHead
from detector.heads.rpn import RPN
from detector.layers.deform import DeformableStages, DeformConv2d, Modulation
from detector.layers.roi_pooling import DeformRoIPool
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.structures import FeatureSpec
from detector.weights import detectors as pretrained
from detector.weights.detectors import _check_modulation
from detector.weights.files import StoredWeights
from detector.weights.foreign import (
    Converted,
    Sampling,
    convert,
    from_detectron2,
    from_mmdetection,
    from_torchvision,
    to_torchvision,
)

STAGES: tuple[Stage, ...] = (3, 4, 5)  # deformable in the foreign checkpoints
NORM = ("weight", "bias", "running_mean", "running_var")
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}  # ResNet-50
CLASSES = 7


def faster_rcnn(num_classes: int = CLASSES, **options: Any) -> Detector:
    torch.manual_seed(0)
    return build_detector(
        backbone=ResNet(50, out_stages=(2, 3, 4, 5), **options.pop("backbone", {})),
        neck=partial(FPN, extra_levels="maxpool"),
        head=partial(FasterRCNNHead, rpn=partial(RPN, anchor_generator=AnchorGenerator())),
        num_classes=num_classes,
        **options,
    )


def fcos(num_classes: int = CLASSES, *, level_scales: bool = False, **options: Any) -> Detector:
    torch.manual_seed(0)
    return build_detector(
        backbone=ResNet(50, **options.pop("backbone", {})),
        neck=FPN,
        head=partial(FCOSHead, level_scales=level_scales),
        num_classes=num_classes,
        **options,
    )


MODULATED = DeformableStages(stages=STAGES, modulation="sigmoid")


# --- torchvision


def test_names_map_to_torchvision_and_back() -> None:
    theirs = {
        "faster_rcnn": detection.fasterrcnn_resnet50_fpn(weights_backbone=None, num_classes=CLASSES + 1),
        "fcos": detection.fcos_resnet50_fpn(weights_backbone=None, num_classes=CLASSES),
    }
    options: dict[str, Any] = {"backbone": {"norm": "batch"}}
    for name, ours in (("faster_rcnn", faster_rcnn(**options)), ("fcos", fcos(**options))):
        expected = theirs[name].state_dict()
        assert from_torchvision(expected).keys() == ours.state_dict().keys()
        assert to_torchvision(from_torchvision(expected)).keys() == expected.keys()
        assert convert(expected).state.keys() == ours.state_dict().keys()


def test_version_2_is_a_choice_of_options() -> None:
    theirs = detection.fasterrcnn_resnet50_fpn_v2(weights_backbone=None, num_classes=CLASSES + 1)
    roi = partial(RoIHead, num_convs=4, num_linear=1, norm="batch")
    ours = build_detector(
        backbone=ResNet(50, out_stages=(2, 3, 4, 5), norm="batch"),
        neck=partial(FPN, extra_levels="maxpool", norm="batch"),
        head=partial(FasterRCNNHead, rpn=partial(RPN, num_convs=2), roi=roi),
        num_classes=CLASSES,
    )
    ours.load_state_dict(from_torchvision(theirs.state_dict()), strict=True)


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


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = detection.fasterrcnn_resnet50_fpn(weights_backbone=None, num_classes=91)
    path = tmp_path_factory.mktemp("weights") / "fasterrcnn.pth"
    torch.save(model.state_dict(), path)
    return path


def test_80_classes_take_the_rows_of_their_ids(
    torchvision_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = torch.load(torchvision_file, weights_only=True)
    found = faster_rcnn(80, weights=str(torchvision_file)).state_dict()
    scores, boxes = (f"box_predictor.{layer}.weight" for layer in ("cls_score", "bbox_pred"))
    got, expected = found[f"head.roi_heads.{scores}"], theirs[f"roi_heads.{scores}"]
    assert torch.equal(got[0], expected[0])  # background
    assert torch.equal(got[80], expected[90])  # toothbrush
    assert torch.equal(got[12], expected[13])  # stop sign: 12 is no class
    got, expected = found[f"head.roi_heads.{boxes}"], theirs[f"roi_heads.{boxes}"]
    assert torch.equal(got[4 * 80 :], expected[4 * 90 :])
    assert "the 80 classes of this model start as COCO's 80" in caplog.text


def test_published_weights_without_epsilon_give_torchvisions_features(
    torchvision_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = detection.fasterrcnn_resnet50_fpn(weights_backbone=None, num_classes=91)
    state = torch.load(torchvision_file, weights_only=True)
    state["backbone.body.bn1.running_var"].fill_(1e-4)  # where an epsilon of 1e-5 matters
    theirs.load_state_dict(state)
    detection._utils.overwrite_eps(theirs, 0.0)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-30  # torch 2.11 refuses 0
    monkeypatch.setattr(pretrained, "read_weights", lambda *given, **options: StoredWeights(state))
    ours = faster_rcnn(80, weights="fasterrcnn_resnet50_fpn.COCO_V1").eval()
    x = torch.randn(1, 3, 64, 64)
    expected = list(theirs.eval().backbone.body(x).values())
    for a, b in zip(ours.backbone(x), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.detach().abs().max()))


def test_checkpoint_of_ours_starts_another_run(tmp_path: Path) -> None:
    """The weights that were evaluated: of the average, where there is one."""
    state = faster_rcnn().state_dict()
    content = {f"averaged.model.{k}": v + 1 if v.is_floating_point() else v for k, v in state.items()}
    content |= {f"model.{k}": v for k, v in state.items()}
    torch.save({"state_dict": content, "detector": {"weights": "averaged.model."}}, tmp_path / "best.ckpt")
    found = faster_rcnn(weights=str(tmp_path / "best.ckpt")).state_dict()
    assert torch.equal(found["backbone.conv1.weight"], state["backbone.conv1.weight"] + 1)


def test_new_classes_and_offsets_start_anew_and_are_reported(
    torchvision_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = faster_rcnn(3, weights=str(torchvision_file), backbone={"deform": DeformableStages(stages=(5,))})
    theirs = torch.load(torchvision_file, weights_only=True)
    weight = "layer4.0.conv2.weight"
    assert torch.equal(model.state_dict()[f"backbone.{weight}"], theirs[f"backbone.body.{weight}"])
    assert "4 entries of the class layers are for other classes" in caplog.text
    assert "6 entries of offset branches are new" in caplog.text
    assert model.state_dict()["backbone.layer4.0.conv2.offset.weight"].abs().max() == 0


def test_weights_of_another_model_are_an_error(torchvision_file: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.weights=.*not the weights of this model"):
        fcos(80, weights=str(torchvision_file))


def test_unknown_name_lists_what_is_published() -> None:
    with pytest.raises(ValueError, match=r"model\.weights=fasterrcnn: .*fcos_resnet50_fpn\.COCO_V1"):
        faster_rcnn(weights="fasterrcnn")


# --- MMDetection and Detectron2


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


def filled(shapes: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_mmdetection_faster_rcnn() -> None:
    theirs = filled(mmdetection_faster_rcnn())
    ours = from_mmdetection(theirs)
    faster_rcnn(backbone={"deform": MODULATED}).load_state_dict(ours, strict=True)
    assert convert(theirs).state.keys() == ours.keys()
    name = "roi_head.bbox_head.fc_cls.bias"
    found = ours["head.roi_heads.box_predictor.cls_score.bias"]
    assert torch.equal(found, torch.cat([theirs[name][-1:], theirs[name][:-1]]))  # theirs: background last
    found = ours["head.roi_heads.box_predictor.bbox_pred.weight"]
    assert torch.equal(found[4:], theirs["roi_head.bbox_head.fc_reg.weight"])
    found = ours["backbone.layer2.1.conv2.offset.weight"]
    assert torch.equal(found, theirs["backbone.layer2.1.conv2.conv_offset.weight"])


def test_mmdetection_without_modulation() -> None:
    shapes = {
        name: shape
        for name, shape in mmdetection_faster_rcnn().items()
        if "conv_offset" not in name and not name.startswith("backbone.")
    }
    theirs = filled(shapes | mmdetection_backbone("conv2.conv_offset", channels=18))
    model = faster_rcnn(backbone={"deform": DeformableStages(stages=STAGES, modulation="none")})
    model.load_state_dict(from_mmdetection(theirs), strict=True)


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
    theirs = filled(mmdetection_fcos())
    ours = from_mmdetection(theirs)
    fcos(backbone={"deform": MODULATED}, level_scales=True).load_state_dict(ours, strict=True)
    assert convert(theirs).state.keys() == ours.keys()
    gn = ours["head.regression_head.conv.10.weight"]
    assert torch.equal(gn, theirs["bbox_head.reg_convs.3.gn.weight"])
    assert torch.equal(ours["neck.extra_blocks.p7.weight"], theirs["neck.fpn_convs.4.conv.weight"])


def test_detectron2_faster_rcnn() -> None:
    theirs = filled(detectron2_faster_rcnn())
    ours = from_detectron2(theirs)
    faster_rcnn(backbone={"deform": MODULATED}).load_state_dict(ours, strict=True)
    assert convert(theirs).state.keys() == ours.keys()


MEAN_RGB, STD_RGB = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE = (MEAN_RGB[::-1], (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("mean", "std"), [(None, None), CAFFE, (MEAN_RGB[::-1], STD_RGB[::-1]), (MEAN_RGB, STD_RGB)]
)
def test_detectron2_images(mean: Any, std: Any) -> None:
    """The same image, as Detectron2 sees it and as we do, gives the same first response."""
    theirs = filled(detectron2_faster_rcnn())
    for name, value in (("pixel_mean", mean), ("pixel_std", std)):
        del theirs[name]
        if value is not None:
            theirs[name] = torch.tensor(value).view(3, 1, 1)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((mean, std) if mean else CAFFE))
    weight = theirs["backbone.bottom_up.stem.conv1.weight"]
    _assert_same_response(convert(theirs).state, weight, mean, std)


def test_caffe_images_by_choice() -> None:
    theirs = filled(mmdetection_fcos())
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in CAFFE)
    _assert_same_response(convert(theirs, images="caffe").state, theirs["backbone.conv1.weight"], mean, std)


def _assert_same_response(ours: dict[str, Tensor], weight: Tensor, mean: Tensor, std: Tensor) -> None:
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    theirs_sees = image.flip(1) if mean[0, 0] < mean[0, 2] else image
    expected = torch.conv2d((theirs_sees - mean) / std, weight)
    seen = faster_rcnn().normalize(image, torch.tensor([[32, 32]]))
    torch.testing.assert_close(
        torch.conv2d(seen, ours["backbone.conv1.weight"]), expected, rtol=1e-4, atol=1e-2
    )


# --- what a file's names do not tell


@pytest.fixture(scope="module")
def mmdetection_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mdconv.pth"
    torch.save({"state_dict": filled(mmdetection_faster_rcnn())}, path)
    return path


def test_another_modulation_is_an_error_that_names_the_option(mmdetection_file: Path) -> None:
    doubled = {"deform": DeformableStages(stages=STAGES)}
    with pytest.raises(ValueError, match=r"Set model\.backbone\.deform\.modulation=sigmoid"):
        faster_rcnn(weights=str(mmdetection_file), backbone=doubled)


@pytest.mark.parametrize(
    ("layer", "option"),
    [
        ("neck.layer_blocks.1.0", "neck.deform"),
        ("head.roi_heads.box_head.0.0", "head.roi.deform"),
    ],
)
def test_another_modulation_of_other_parts_names_their_option(layer: str, option: str) -> None:
    model = small(roi={"num_convs": 1, "deformable_convs": 1}, neck={"deformable_levels": (3,)})
    state = {f"{layer}.offset.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=rf"Set model\.{option}\.modulation=sigmoid"):
        _check_modulation(model, "x.pth", Converted(state, {}, {option: Sampling("sigmoid")}))


def small(**options: Any) -> Detector:
    return build_detector(
        backbone=ResNet(18, out_stages=(2, 3, 4, 5), deform=options.pop("deform", None)),
        neck=partial(FPN, extra_levels="maxpool", out_channels=8, **options.pop("neck", {})),
        head=partial(FasterRCNNHead, roi=partial(RoIHead, width=8, **options.pop("roi", {}))),
        num_classes=CLASSES,
        **options,
    )


def pooling(modulation: Modulation) -> dict[str, Any]:
    return {"pooling": partial(DeformRoIPool, modulation=modulation, width=4)}


def test_another_modulation_of_the_pooling_is_an_error_that_names_the_option() -> None:
    state = {"head.roi_heads.pooling.offset.0.mask.0.weight": torch.zeros(1)}
    found = Converted(state, {}, {"head.roi.pooling": Sampling("sigmoid")})
    with pytest.raises(ValueError, match=r"Set model\.head\.roi\.pooling\.modulation=sigmoid"):
        _check_modulation(small(roi=pooling("doubled_sigmoid")), "x.pth", found)


def test_deformable_pooling_starts_anew_where_the_weights_have_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(small().state_dict(), tmp_path / "regular.pth")
    small(weights=str(tmp_path / "regular.pth"), roi=pooling("doubled_sigmoid"))
    assert "40 entries of offset branches are new" in caplog.text


def test_depthwise_layers_start_anew_in_the_place_of_convolutions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of regular ones, and of deformable ones; their own weights load."""
    for name, options in (("regular", {}), ("v2", {"modulation": "doubled_sigmoid"}), ("v4", {"version": 4})):
        file, caplog.handler.stream = tmp_path / f"{name}.pth", io.StringIO()
        torch.save(
            small(
                deform=DeformableStages(stages=cast(tuple[Stage, ...], (5,) * bool(options)), **options)
            ).state_dict(),
            file,
        )
        small(weights=str(file), deform=DeformableStages(stages=(5,), version=4))
        of_file = {"regular": 2, "v2": 6, "v4": 0}[name]
        said = f"{of_file} entries of the file are of convolutions that are deformable and depth-wise here"
        assert (said in caplog.handler.stream.getvalue()) == (of_file > 0)
        assert "not used" not in caplog.handler.stream.getvalue()
        assert "are new" not in caplog.handler.stream.getvalue()


def test_depthwise_layers_take_the_place_of_deformable_convolutions_of_others(
    mmdetection_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deform = DeformableStages(stages=STAGES, version=4)
    faster_rcnn(weights=str(mmdetection_file), backbone={"deform": deform})
    assert "39 entries of the file are of convolutions that are deformable and depth-wise" in caplog.text


def own_checkpoint(path: Path, model: Detector, **parts: Any) -> str:
    """As training writes it, with the configurations of these parts of the model."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    entry = {"weights": "model.", "config": {"model": parts}}
    torch.save({"state_dict": state, "detector": entry}, path)
    return str(path)


LAST_STAGE: dict[str, Any] = {"stages": (5,), "blocks": "last"}


def test_another_modulation_of_our_own_checkpoint_is_an_error(tmp_path: Path) -> None:
    sigmoid = small(deform=DeformableStages(**LAST_STAGE, modulation="sigmoid"))
    file = own_checkpoint(tmp_path / "x.ckpt", sigmoid, backbone={"deform": {"modulation": "sigmoid"}})
    small(weights=file, deform=DeformableStages(**LAST_STAGE, modulation="sigmoid"))
    with pytest.raises(
        ValueError, match=r"conv2 was trained .*Set model\.backbone\.deform\.modulation=sigmoid"
    ):
        small(weights=file, deform=DeformableStages(**LAST_STAGE))


@pytest.mark.parametrize(
    "neck",
    [{"deform": {"modulation": "sigmoid"}}, {"modulation": "sigmoid"}],
    ids=["its deform", "format 1"],
)
def test_our_own_checkpoint_tells_the_modulation_of_each_part(tmp_path: Path, neck: dict[str, Any]) -> None:
    """What the configuration leaves out is the default."""
    deform = DeformableStages(**LAST_STAGE)
    here = small(deform=deform, neck={"deformable_levels": (3,)})
    file = own_checkpoint(tmp_path / "x.ckpt", here, backbone={"deform": {"version": None}}, neck=neck)
    with pytest.raises(ValueError, match=r"Set model\.neck\.deform\.modulation=sigmoid"):
        small(weights=file, deform=deform, neck={"deformable_levels": (3,)})


def test_our_own_depthwise_layers_load_without_a_word_of_masks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    deform = DeformableStages(**LAST_STAGE, version=3)
    file = own_checkpoint(tmp_path / "x.ckpt", small(deform=deform), backbone={"deform": {"version": 3}})
    small(weights=file, deform=deform)
    torch.save(small(deform=deform).state_dict(), tmp_path / "bare.pth")
    small(weights=str(tmp_path / "bare.pth"), deform=deform)
    assert not caplog.text


def test_other_options_of_our_own_checkpoint_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    deform: dict[str, Any] = {"max_offset_px": 4.0}
    file = own_checkpoint(
        tmp_path / "x.ckpt",
        small(deform=DeformableStages(**LAST_STAGE, **deform), neck={"deformable_levels": (3,)}),
        backbone={"deform": deform},
        neck={"deform": {"max_offset_px": None}},
        head={"roi": {"aligned": True, "sampling_ratio": 2}},
    )
    bounded = {"deformable_levels": (3,), "deform": partial(DeformConv2d, max_offset_px=2.0)}
    small(weights=file, deform=DeformableStages(**LAST_STAGE), neck=bounded)
    assert caplog.text.strip().endswith(
        "To reproduce its published results: model.head.roi.aligned=true "
        "model.backbone.deform.max_offset_px=4.0 model.neck.deform.max_offset_px=null"
    )
    caplog.clear()
    small(
        weights=file,
        deform=DeformableStages(**LAST_STAGE, **deform),
        neck={"deformable_levels": (3,)},
        roi={"aligned": True},
    )
    assert not caplog.text


def test_masks_that_a_file_does_not_tell_the_function_of_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for modulation in ("sigmoid", "none"):
        caplog.clear()
        deform = DeformableStages(**LAST_STAGE, modulation=modulation)
        torch.save(small(deform=deform).state_dict(), tmp_path / "bare.pth")
        small(weights=str(tmp_path / "bare.pth"), deform=deform)
        told = "If they were not trained with model.backbone.deform.modulation=sigmoid, set it as they were"
        assert (told in caplog.text) == (modulation == "sigmoid")


def test_half_an_offset_branch_is_an_error(tmp_path: Path) -> None:
    torch.save(small(roi=pooling("none")).state_dict(), tmp_path / "v1.pth")
    with pytest.raises(ValueError, match=r"pooling\.offset\.0\.mask\.0\.bias.*got nothing"):
        small(weights=str(tmp_path / "v1.pth"), roi=pooling("sigmoid"))


def test_options_that_the_weights_were_not_trained_with_are_reported(
    mmdetection_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faster_rcnn(weights=str(mmdetection_file), backbone={"deform": MODULATED})
    assert "model.head.roi.aligned=true model.head.roi.sampling_ratio=0" in caplog.text
    assert "model.head.rpn.anchor_generator.grid" not in caplog.text  # fits


def test_options_of_torchvisions_fcos_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    torch.save(theirs.state_dict(), tmp_path / "fcos.pth")
    fcos(weights=str(tmp_path / "fcos.pth"), backbone={"norm": "batch"})
    assert caplog.text.count("model.head.grid=torchvision") == 1
    assert "point_offset" not in caplog.text


def test_mmdetection_towers_may_be_deformable() -> None:
    """dcn_on_last_conv."""
    theirs = mmdetection_fcos()
    for tower in ("cls", "reg"):
        theirs |= layer(f"bbox_head.{tower}_convs.3.conv.conv_offset", 27, 256, 3, 3)
    theirs = filled(theirs)
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
    model.load_state_dict(from_mmdetection(theirs), strict=True)
    found = model.state_dict()["head.regression_head.conv.9.offset.bias"]
    assert torch.equal(found, theirs["bbox_head.reg_convs.3.conv.conv_offset.bias"])
