"""A ground truth that pycocotools would misread is refused with where and why."""

import json
from pathlib import Path
from typing import Any

import pytest

from detector.coco.truth_reader import read_ground_truth
from detector.evaluation.coco import CocoEvaluator
from detector.option_types import TaskName
from tests.coco.small_coco import as_coco
from tests.evaluation.problems import annotation, ground_truth, perfect_results, random_problem
from tests.shared import shared_path


def with_annotation(**changes: Any) -> dict[str, Any]:
    truth = ground_truth()
    truth["annotations"].append(annotation(77, 20, 1, [1.0, 2.0, 3.0, 4.0]) | changes)
    return truth


def test_a_bad_annotation_is_an_error() -> None:
    with pytest.raises(ValueError, match=r'image 20 \("b.jpg"\), annotation 77: box .* zero or neg') as error:
        CocoEvaluator(with_annotation(bbox=[1.0, 2.0, 0.0, 4.0]), source="val.json")
    assert str(error.value).startswith("val.json: 1 annotation problem")
    assert "evaluation.on_bad_box=drop" in str(error.value)


def test_drop_leaves_bad_annotations_out_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    truth = with_annotation(bbox=[1.0, 2.0, 0.0, 4.0])
    evaluator = CocoEvaluator(truth, on_bad_box="drop")
    assert "annotation 77" in caplog.text
    assert evaluator.evaluate(perfect_results(ground_truth())).to_dict()["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("missing", [("width", "height"), ("file_name",)])
def test_images_need_no_size_and_no_name(missing: tuple[str, ...]) -> None:
    truth = ground_truth()
    for image in truth["images"]:
        for key in missing:
            del image[key]
    assert CocoEvaluator(truth).evaluate(perfect_results(truth)).to_dict()["AP"] == pytest.approx(1.0)


def test_a_box_before_an_image_of_unknown_size_is_outside_of_nothing() -> None:
    truth = with_annotation(bbox=[-30.0, 2.0, 3.0, 4.0])
    truth["images"] = [{"id": 10}, {"id": 20}]
    assert len(read_ground_truth(truth).images) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 10}, {"id": 10}, {"id": 20}]}, "image 10: another image has the same id"),
        ({"images": []}, '"images" is empty'),
        ({"images": [{"file_name": "a.jpg"}]}, 'image None ("a.jpg"): has no id'),
        ({"images": [{"id": [1]}]}, "image [1]: has no id"),
        ({"images": [{"id": 10}, {"id": "20"}]}, "some image ids are texts and some are numbers"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id 1 is listed twice"),
        ({"categories": [{"id": 1}]}, "category at position 0: id 1, name None"),
        ({"annotations": None}, '"annotations" must be a list of objects, found a NoneType'),
        ({"annotations": [7]}, 'every element of "annotations" must be an object, found 7'),
    ],
)
def test_bad_tables_are_errors_even_when_dropping(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"val\.json") as error:
        CocoEvaluator(ground_truth(**changes), source="val.json", on_bad_box="drop")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "pass it as predictions=, and the ground truth here"),
        ("{", "not valid JSON near line 1"),
        ("", "the file is empty"),
        ('{"images": []}', "lacks annotations, categories"),
        ('{"annotations": [{"score": 0.5}]}', "It looks like predictions"),
    ],
)
def test_a_file_that_is_no_ground_truth(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gt.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"gt\.json") as error:
        read_ground_truth(path)
    assert message in str(error.value)


def test_a_file_and_its_dictionary_are_one_ground_truth(tmp_path: Path) -> None:
    truth, _ = random_problem(3)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    assert read_ground_truth(tmp_path / "gt.json").same_as(read_ground_truth(truth))
    truth["annotations"][0]["bbox"][0] += 1
    assert not read_ground_truth(tmp_path / "gt.json").same_as(read_ground_truth(truth))


def test_other_masks_and_keypoints_make_another_ground_truth() -> None:
    truth = ground_truth()
    truth["categories"] = [{**one, "keypoints": ["tip"]} for one in truth["categories"]]
    for one in truth["annotations"]:
        one |= {"segmentation": [[30, 30, 40, 30, 40, 40]], "keypoints": [31, 31, 2]}
    tasks: tuple[TaskName, ...] = ("bbox", "segm", "keypoints")
    first = read_ground_truth(truth, tasks=tasks)
    assert first.same_as(read_ground_truth(truth, tasks=tasks))
    assert not first.same_as(read_ground_truth(truth))
    for key, value in (("segmentation", [[30, 30, 41, 30, 40, 40]]), ("keypoints", [31, 32, 2])):
        other = {**truth, "annotations": [{**truth["annotations"][0], key: value}, *truth["annotations"][1:]]}
        assert not first.same_as(read_ground_truth(other, tasks=tasks))


@pytest.mark.parametrize("value", [float("nan"), "half of a pair: \ud800", 10**30])
def test_values_that_the_fast_reader_refuses_are_read(tmp_path: Path, value: object) -> None:
    truth = ground_truth(info={"x": value})
    truth["annotations"][0]["note"] = value
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    assert read_ground_truth(tmp_path / "gt.json").same_as(read_ground_truth(ground_truth()))


def test_integers_written_as_floats_are_ids_everywhere() -> None:
    truth = ground_truth()
    for row in (*truth["images"], *truth["categories"], *truth["annotations"]):
        for key in {"id", "image_id", "category_id"} & row.keys():
            row[key] = float(row[key])
    assert read_ground_truth(truth).same_as(read_ground_truth(ground_truth()))


def test_supercategories_make_no_other_ground_truth() -> None:
    truth = ground_truth()
    truth["categories"][0]["supercategory"] = "animal"
    assert read_ground_truth(truth).same_as(read_ground_truth(ground_truth()))


def test_a_part_of_the_images() -> None:
    truth = read_ground_truth(ground_truth())
    part = truth.of_images([20])
    assert [*part.image_numbers.values()] == [1]
    assert part.file_names == ("b.jpg",)
    assert part.annotations.boxes_xywh.tolist() == [[30.0, 30.0, 25.0, 25.0]]
    assert part.class_names == truth.class_names


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth()), encoding="utf-8-sig")
    assert read_ground_truth(tmp_path / "gt.json").num_images == 2


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.json: no such file"):
        read_ground_truth(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("roboflow_rbc_mini", None),
        ("datumaro_uncompressed_rle_gap_ids.json", None),
        ("lvis_val_100_no_iscrowd.json", None),
        ("fce_string_image_ids_ignore.json", None),
        ("bccd_zero_size_boxes.json", "zero or negative width"),
        ("coco_ann_2206849_zero_height.json", "zero or negative height"),
        ("mmdet_coco_sample.json", "no category has the id 3"),
        ("hotcoco_healthcheck_bad.json", "image 1 .* another image has the same id"),
    ],
)
def test_tricky_files(name: str, message: str | None) -> None:
    path = shared_path(f"fixtures/annotations/{name}")
    path = next(path.glob("*.json")) if path.is_dir() else path
    if message is None:
        small = read_ground_truth(path)
        small = small.of_images([value for _, value in list(small.image_numbers)[:10]])
        results = perfect_results(as_coco(small.annotations))
        assert pytest.approx(1.0) == CocoEvaluator(small, backend="hotcoco").evaluate(results).AP
    else:
        with pytest.raises(ValueError, match=message):
            read_ground_truth(path)


def test_areas_larger_than_their_boxes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    truth = ground_truth()
    for row in truth["annotations"]:
        row["area"] *= 4
    CocoEvaluator(truth)
    assert "3 of 3 annotations" in caplog.text
    assert "larger than their box, 4 times" in caplog.text


def test_an_ignore_flag_is_said_to_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    CocoEvaluator(with_annotation(ignore=1))
    assert '1 annotations have "ignore" set' in caplog.text
