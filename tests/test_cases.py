"""The small inputs of `../shared/cases`, which once gave a silent wrong result or were refused though right.

What each proves is tested on generated files as well, where the code lies that it is about.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from detector.coco.layouts import SplitPaths
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from tests.shared import shared_path


def set_up(case: str, **options: Any) -> DetectionDataModule:
    images = str(shared_path("cases/base/images"))
    module = DetectionDataModule(
        root=str(shared_path(f"cases/{case}")),
        image_size=ImageSize(96, 128),
        batch_size=2,
        val_batch_size=2,
        num_workers=0,
        seed=0,
        train=SplitPaths("train.json", images),
        val=SplitPaths("val.json", images),
        **options,
    )
    module.setup("fit")
    return module


REFUSED = {
    "crowd_all": ["train.json: no object to train on: all 16 annotations are crowds", "validate on: all 8"],
    "crowd_val": ["val.json: no object to validate on: all 8 annotations are crowds"],
    "noann_both": ["no object to train on", "no object to validate on", "is empty"],
    "noann_train": ["train.json: no object to train on", "is empty"],
    "normalised": ["all 16 boxes look normalized", "all 8 boxes look normalized"],
    "poly_only": ["16 annotation problems", "no bbox but a segmentation"],
    "bbox_str_one": [
        "4 annotation problems",
        "['22', '38', '21', '39'] is not four",
        "texts",
        "bbox [] is not",
    ],
    "cat_null": ["2 annotation problems", "no category_id (null or missing)"],
    "xyxy": ["11 of 16 boxes reach beyond", "6 of 8 boxes", "read as x1, y1, x2, y2 all would fit"],
    "thin_border_right": ["[127.9999999999, 10, 5, 5] has a side below 0.01 pixels", "annotation 1"],
    "thin_click_1e-6": ["[100, 10, 1e-06, 20] has a side below 0.01 pixels", "annotation 1"],
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r"train\.json|val\.json") as error:
        set_up(case)
    for words in REFUSED[case]:
        assert words in str(error.value)


MESSAGES = {
    "base": (16, 8, ""),
    "crowd_false_text": (4, 4, 'have an "iscrowd" that is a text'),
    "roboflow_same_name": (16, 8, "left out of the classes"),
    "roboflow_one_class_same_name": (16, 8, "left out of the classes"),
    "area_neg": (16, 8, '16 annotations have no "area" above 0'),
    "dup_images": (24, 8, "4 image files are listed more than once, under 8 ids"),
    "dup_split": (16, 8, "8 image files are listed more than once, under 16 ids"),
    "dup_annotations": (16, 8, "16 annotations repeat an earlier one exactly"),
    "leak": (16, 16, "all 8 validation images are training images"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_told(case: str, caplog: pytest.LogCaptureFixture) -> None:
    train_objects, val_objects, words = MESSAGES[case]
    with caplog.at_level(logging.WARNING):
        module = set_up(case)
    assert module.train_set.annotations.object_count == train_objects
    assert module.val_set.annotations.object_count == val_objects
    assert words in caplog.text
    assert case != "base" or not caplog.text


@pytest.mark.parametrize("case", ["thin_border_right", "thin_click_1e-6"])
def test_thin_boxes_can_be_dropped(case: str) -> None:
    assert set_up(case, on_bad_box="drop").train_set.annotations.object_count == 15


SCORED = {  # predictions, annotations: AP, or the words of a refusal
    ("areaneg_perfect.json", "area_neg/val.json"): 1.0,
    ("areaneg_perfect.json", "crowd_all/val.json"): "all 8 annotations are crowds",
    ("areaneg_perfect.json", "xyxy/val.json"): "6 of 8 boxes reach beyond their image",
    ("predict_like.json", "ids_other_order/val.json"): "8 results name one image by image_id and another",
    ("predict_like.json", "base/val.json"): "4 results are of images that the ground truth does not have",
    ("predict_right.json", "ids_other_order/val.json"): 1.0,
    ("stems.json", "base/val.json"): 1.0,
    ("wrapped.json", "base/val.json"): 1.0,
    ("xyxy_dt.json", "base/val.json"): "6 of 8 boxes reach beyond their image; read as x1, y1, x2, y2",
    ("dense_dt.json", "dense_gt.json"): 67 / 101,
    ("base/val.json", "base/val.json"): "pass it as annotations=",
    ("wrapped.json", "predict_right.json"): "pass it as predictions=",
}


@pytest.mark.parametrize(("predictions", "annotations"), SCORED)
def test_scored(
    predictions: str,
    annotations: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases, expected = shared_path("cases"), SCORED[predictions, annotations]
    words = [f"predictions={cases / predictions}", f"annotations={cases / annotations}"]
    monkeypatch.setattr("sys.argv", ["detector", "evaluate", *words, f"output_dir={tmp_path}"])
    code = main()
    if isinstance(expected, str):
        assert code == 2
        assert expected in capsys.readouterr().err
    else:
        assert code == 0
        assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == pytest.approx(expected)
