"""Rows of classes go to the class of the same name, or start anew."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.models.detector import Detector
from detector.weights.class_rows import match_names
from detector.weights.detectors import load_detector_weights
from detector.weights.foreign import to_torchvision
from tests.samples import small_faster_rcnn, small_fcos

FCOS_CLASSES = "head.classification_head.cls_logits."
RCNN_CLASSES = "head.roi_heads.box_predictor.cls_score."
RCNN_BOXES = "head.roi_heads.box_predictor.bbox_pred."
MODELS = {"fcos": small_fcos, "faster_rcnn": small_faster_rcnn}
make_agnostic = partial(small_faster_rcnn, class_agnostic=True)


def numbered(model: Detector) -> Detector:
    """Every row of the class layers holds its number, from 100."""
    for name, value in model.state_dict().items():
        if name.startswith((FCOS_CLASSES, RCNN_CLASSES, RCNN_BOXES)):
            rows = torch.arange(100.0, 100 + len(value))
            value.copy_(rows.view(-1, *[1] * (value.ndim - 1)).expand_as(value))
    return model


def checkpoint(path: Path, model: Detector, class_names: list[str] | None) -> str:
    """As training writes it; a bare state dict without names."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    entry: dict[str, Any] = {"weights": "model.", "config": {}, "class_names": class_names}
    torch.save({"state_dict": state} | ({"detector": entry} if class_names else {}), path)
    return str(path)


def rows(model: Detector, layer: str) -> list[float | None]:
    """What each row of the bias holds: its number in the file, None where it is none."""
    values = model.state_dict()[f"{layer}bias"].tolist()
    return [value if value >= 100 else None for value in values]


CASES: dict[str, tuple[list[str], list[str], list[int | None]]] = {
    "same": (["a", "b", "c"], ["a", "b", "c"], [0, 1, 2]),
    "exchanged": (["a", "b", "c"], ["c", "a", "b"], [2, 0, 1]),
    "one new": (["a", "b", "c"], ["x", "b", "c"], [None, 1, 2]),
    "fewer": (["a", "b", "c"], ["c"], [2]),
    "more": (["a", "b", "c"], ["d", "c", "b", "a", "e"], [None, 2, 1, 0, None]),
    "other spelling": (["traffic light", "Dog", "c"], ["dog", "traffic_light", "C"], [1, 0, 2]),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("case", CASES)
def test_rows_follow_the_names(kind: str, case: str, tmp_path: Path) -> None:
    theirs, ours, expected = CASES[case]
    file = checkpoint(tmp_path / "x.ckpt", numbered(MODELS[kind]()), theirs)
    model = MODELS[kind](num_classes=len(ours))
    load_detector_weights(model, file, class_names=ours)
    if kind == "fcos":
        assert rows(model, FCOS_CLASSES) == [None if n is None else 100 + n for n in expected]
        return
    assert rows(model, RCNN_CLASSES) == [100, *(None if n is None else 101 + n for n in expected)]
    boxes: list[int | None] = [100, 101, 102, 103]
    for n in expected:
        boxes += [None] * 4 if n is None else [104 + 4 * n + k for k in range(4)]
    assert rows(model, RCNN_BOXES) == boxes


@pytest.mark.parametrize("kind", MODELS)
def test_other_classes_start_anew_and_it_is_told(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same number of them is no reason to take their rows."""
    file = checkpoint(tmp_path / "x.ckpt", numbered(MODELS[kind](num_classes=2)), ["red", "blue"])
    model = MODELS[kind](num_classes=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_detector_weights(model, file, class_names=["screw", "nut"])
    for name, value in model.state_dict().items():
        if name.startswith((FCOS_CLASSES, RCNN_CLASSES, RCNN_BOXES)):
            assert torch.equal(value, before[name])
    assert "of its 2 classes (red, blue) none is among the 2 here (screw, nut)" in caplog.text


def test_what_is_taken_and_what_is_new_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = checkpoint(tmp_path / "x.ckpt", small_fcos(num_classes=2), ["red", "blue"])
    load_detector_weights(small_fcos(num_classes=2), file, class_names=["blue", "nut"])
    assert "taken by name: for 1 of 2 classes (blue); 1 start anew (nut)" in caplog.text


@pytest.mark.parametrize("names", [["a", "b", "c"], ["c", "b", "a"]])
def test_known_classes_are_no_warning(
    names: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    file = checkpoint(tmp_path / "x.ckpt", small_fcos(), ["a", "b", "c"])
    load_detector_weights(small_fcos(), file, class_names=names)
    assert not caplog.text


def test_boxes_that_classes_share_stay(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "x.ckpt", numbered(make_agnostic()), ["a", "b", "c"])
    model = make_agnostic(num_classes=2)
    load_detector_weights(model, file, class_names=["c", "x"])
    assert rows(model, RCNN_BOXES) == [100, 101, 102, 103]
    assert rows(model, RCNN_CLASSES) == [100, 103, None]


def test_rows_without_names_are_taken_in_order_and_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = checkpoint(tmp_path / "x.pth", numbered(small_fcos()), None)
    model = small_fcos()
    load_detector_weights(model, file, class_names=["x", "y", "z"])
    assert rows(model, FCOS_CLASSES) == [100, 101, 102]
    assert "does not say which classes it was trained on: its 3 rows" in caplog.text
    assert "as x, y, z" in caplog.text


def test_names_in_files_of_mmdetection_count(tmp_path: Path) -> None:
    """Their background row is the last."""
    state = numbered(small_faster_rcnn()).state_dict()
    theirs: dict[str, Tensor] = {}
    for name, value in state.items():
        new = _mmdetection_name(name)
        if name.startswith(RCNN_CLASSES):
            value = value.roll(-1, 0)
        theirs[new] = value[4:] if name.startswith(RCNN_BOXES) else value
    torch.save(
        {"meta": {"dataset_meta": {"classes": ("a", "b", "c")}}, "state_dict": theirs}, tmp_path / "x.pth"
    )
    model = small_faster_rcnn(num_classes=2)
    load_detector_weights(model, str(tmp_path / "x.pth"), class_names=["c", "a"])
    assert rows(model, RCNN_CLASSES) == [100, 103, 101]
    assert rows(model, RCNN_BOXES)[4:] == [112, 113, 114, 115, 104, 105, 106, 107]


def _mmdetection_name(name: str) -> str:
    for ours, theirs in (
        ("head.roi_heads.box_predictor.cls_score.", "roi_head.bbox_head.fc_cls."),
        ("head.roi_heads.box_predictor.bbox_pred.", "roi_head.bbox_head.fc_reg."),
        ("head.roi_heads.box_head.fc6.", "roi_head.bbox_head.shared_fcs.0."),
        ("head.roi_heads.box_head.fc7.", "roi_head.bbox_head.shared_fcs.1."),
        ("head.rpn.head.conv.0.0.", "rpn_head.rpn_conv."),
        ("head.rpn.head.cls_logits.", "rpn_head.rpn_cls."),
        ("head.rpn.head.bbox_pred.", "rpn_head.rpn_reg."),
    ):
        name = name.replace(ours, theirs)
    for level in range(4):
        name = name.replace(f"neck.inner_blocks.{level}.0.", f"neck.lateral_convs.{level}.conv.")
        name = name.replace(f"neck.layer_blocks.{level}.0.", f"neck.fpn_convs.{level}.conv.")
    return name


@pytest.mark.parametrize(("kind", "classes"), [("fcos", 91), ("faster_rcnn", 90)])
def test_torchvisions_rows_are_cocos_by_id(kind: str, classes: int, tmp_path: Path) -> None:
    """FCOS has a class for id 0, Faster R-CNN its background."""
    theirs = to_torchvision(numbered(MODELS[kind](num_classes=classes)).state_dict())
    torch.save(theirs, tmp_path / "x.pth")
    model = MODELS[kind](num_classes=3)
    load_detector_weights(model, str(tmp_path / "x.pth"), class_names=["toothbrush", "person", "screw"])
    if kind == "fcos":
        assert rows(model, FCOS_CLASSES) == [190, 101, None]
    else:
        assert rows(model, RCNN_CLASSES) == [100, 190, 101, None]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (["a", "a"], ["a"], [None]),
        (["Car", "car"], ["CAR"], [None]),
        (["car"], ["Car", "CAR"], [None, None]),
        (["car"], ["car", "Car"], [0, None]),
        (["N/A", "__background__"], ["N/A", "__background__"], [None, None]),
        (["cafe\u0301"], ["caf\u00e9"], [0]),
    ],
)
def test_names_that_could_be_several_match_nothing(
    theirs: list[str], ours: list[str], expected: list[Any]
) -> None:
    assert match_names(theirs, ours) == expected
