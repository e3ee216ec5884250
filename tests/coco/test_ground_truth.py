"""A ground truth that pycocotools would misread is refused with where and why."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from detector.coco.truth_file import read_ground_truth
from detector.evaluation.coco import CocoEvaluator
from tests.evaluation.problems import annotation, ground_truth, perfect_results
from tests.shared import shared_path


def with_annotation(**changes: Any) -> dict[str, Any]:
    truth = ground_truth()
    truth["annotations"].append(annotation(77, 20, 1, [1.0, 2.0, 3.0, 4.0]) | changes)
    return truth


BAD = {
    "zero width": {"bbox": [1.0, 2.0, 0.0, 4.0]},
    "negative height": {"bbox": [1.0, 2.0, 3.0, -4.0]},
    "not four finite numbers": {"bbox": [1.0, 2.0, float("nan"), 4.0]},
    "four finite numbers [x, y": {"bbox": [1.0, 2.0, 3.0]},
    "box None is not": {"bbox": None},
    "outside its 100 x 80 image": {"bbox": [100.0, 2.0, 3.0, 4.0]},
    "image_id 21 is not in images": {"image_id": 21},
    "category_id 2 is not in categories": {"category_id": 2},
    "category_id [1] is not a number": {"category_id": [1]},
}


@pytest.mark.parametrize(("message", "changes"), BAD.items())
def test_a_bad_annotation_is_an_error(message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="annotation 77") as error:
        CocoEvaluator(with_annotation(**changes), source="val.json")
    assert message in str(error.value)
    assert str(error.value).startswith("val.json: image ")


def test_drop_leaves_bad_annotations_out_and_says_so() -> None:
    truth = with_annotation(bbox=[1.0, 2.0, 0.0, 4.0])
    with pytest.warns(UserWarning, match=r'image 20 \("b.jpg"\), annotation 77: .* zero width'):
        evaluator = CocoEvaluator(truth, on_bad_box="drop")
    assert evaluator.evaluate(perfect_results(ground_truth())).to_dict()["AP"] == pytest.approx(1.0)


def test_all_problems_are_listed_at_once() -> None:
    truth = ground_truth()
    truth["annotations"] += [annotation(i, 10, 1, [0.0, 0.0, 0.0, 0.0]) for i in range(100, 130)]
    with pytest.raises(ValueError, match="annotation 100:") as error:
        CocoEvaluator(truth)
    assert "annotation 119:" in str(error.value)
    assert "10 more" in str(error.value)


def test_ids_of_the_wrong_kind_are_explained() -> None:
    with pytest.raises(ValueError, match="written as texts, and as numbers in the ground truth"):
        CocoEvaluator(with_annotation(image_id="20"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 10}, {"id": 10}, {"id": 20}]}, "image id 10 occurs 2 times"),
        ({"images": []}, "there is no image"),
        ({"images": [{"file_name": "a.jpg"}]}, 'image at position 0 has no "id"'),
        ({"images": [{"id": [1]}]}, "image at position 0 has id [1]"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id 1 occurs 2 times"),
        ({"categories": [{"id": 1}]}, 'category at position 0 has no "name"'),
        ({"annotations": None}, 'list of objects under "annotations", found a NoneType'),
    ],
)
def test_bad_tables_are_errors_even_when_dropping(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"val\.json") as error:
        CocoEvaluator(ground_truth(**changes), source="val.json", on_bad_box="drop")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "looks like a results file"),
        ("{", "not JSON"),
        ('{"images": []}', 'under "annotations", found none'),
    ],
)
def test_a_file_that_is_no_ground_truth(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gt.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"gt\.json") as error:
        read_ground_truth(path)
    assert message in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth()), encoding="utf-8-sig")
    assert read_ground_truth(tmp_path / "gt.json")["images"]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.json: no such file"):
        read_ground_truth(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("roboflow_rbc_mini", 1.0),
        ("datumaro_uncompressed_rle_gap_ids.json", 1.0),
        ("lvis_val_100_no_iscrowd.json", 1.0),
        ("bccd_zero_size_boxes.json", "zero width"),
        ("coco_ann_2206849_zero_height.json", "zero height"),
        ("fce_string_image_ids_ignore.json", "written as numbers, and as texts"),
        ("mmdet_coco_sample.json", "category_id 3 is not in categories"),
        ("hotcoco_healthcheck_bad.json", "image id 1 occurs 2 times"),
    ],
)
def test_tricky_files(name: str, expected: float | str) -> None:
    path = shared_path(f"fixtures/annotations/{name}")
    truth = read_ground_truth(next(path.glob("*.json")) if path.is_dir() else path)
    if isinstance(expected, float):
        small = _few_images(truth)
        assert CocoEvaluator(small).evaluate(perfect_results(small)).to_dict()["AP"] == pytest.approx(
            expected
        )
    else:
        with pytest.raises(ValueError, match=expected):
            CocoEvaluator(truth)


def _few_images(truth: dict[str, Any], limit: int = 10) -> dict[str, Any]:
    """The first images and the classes seen there; LVIS has 1230 classes and pycocotools is slow."""
    small = copy.deepcopy(truth) | {"images": truth["images"][:limit]}
    ids = {json.dumps(image["id"]) for image in small["images"]}
    small["annotations"] = [a for a in truth["annotations"] if json.dumps(a["image_id"]) in ids]
    used = {a["category_id"] for a in small["annotations"]}
    return small | {"categories": [c for c in truth["categories"] if c["id"] in used]}


def test_areas_larger_than_their_boxes_are_told() -> None:
    truth = ground_truth()
    for row in truth["annotations"]:
        row["area"] *= 4
    with pytest.warns(UserWarning, match="3 of 3 annotations .* larger than their box, 4 times"):
        CocoEvaluator(truth)
