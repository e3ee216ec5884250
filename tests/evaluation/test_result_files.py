"""Results are read as COCO's list and as COCO objects with scores; what is neither is told from both."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from detector.evaluation.coco import CocoEvaluator, CocoMetrics
from detector.evaluation.result_files import read_results
from tests.evaluation.problems import PERFECT, ground_truth, perfect_results


def evaluated(tmp_path: Path, content: Any, truth: dict[str, Any] | None = None) -> CocoMetrics:
    (tmp_path / "dt.json").write_text(json.dumps(content))
    return CocoEvaluator(truth or ground_truth()).evaluate(read_results(tmp_path / "dt.json"))


@pytest.mark.parametrize("key", ["annotations", "predictions", "results", "detections"])
def test_results_in_an_object(tmp_path: Path, key: str) -> None:
    assert evaluated(tmp_path, {key: perfect_results(ground_truth()), "info": [{}]}).AP > PERFECT


def test_evaluator_reads_a_file(tmp_path: Path) -> None:
    (tmp_path / "dt.json").write_text(json.dumps(perfect_results(ground_truth())))
    evaluator = CocoEvaluator(ground_truth())
    assert evaluator.evaluate(tmp_path / "dt.json") == evaluator.evaluate(str(tmp_path / "dt.json"))
    assert evaluator.evaluate(tmp_path / "dt.json").AP > PERFECT


def test_a_coco_object_has_ids_of_its_own(tmp_path: Path) -> None:
    """As tools write it that number images and categories anew: here, each as another's in the truth."""
    truth = ground_truth()
    images, categories = {10: 20, 20: 10}, {1: 3, 3: 1}
    content = {
        "images": [{**image, "id": images[image["id"]]} for image in truth["images"]],
        "categories": [{**category, "id": categories[category["id"]]} for category in truth["categories"]],
        "annotations": [
            {**r, "image_id": images[r["image_id"]], "category_id": categories[r["category_id"]]}
            for r in perfect_results(truth)
        ],
    }
    metrics = evaluated(tmp_path, content)
    assert metrics.AP > PERFECT
    assert metrics.notes == ()


def test_tables_without_names_leave_the_ids(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 10}, {"id": 20, "file_name": ""}, 3, {"file_name": "b.jpg"}],
        "categories": None,
        "annotations": perfect_results(ground_truth()),
    }
    assert evaluated(tmp_path, content).AP > PERFECT


def coco_object(images: list[Any], categories: list[Any]) -> dict[str, Any]:
    return {"images": images, "categories": categories, "annotations": perfect_results(ground_truth())}


CLASSES = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]


def test_images_that_the_ground_truth_lacks_are_counted(tmp_path: Path) -> None:
    content = coco_object([{"id": 10, "file_name": "c.jpg"}, {"id": 20, "file_name": "b.jpg"}], CLASSES)
    with pytest.raises(ValueError, match="2 results are of images that the ground truth does not") as error:
        evaluated(tmp_path, content)
    assert '"c.jpg". Its images are "a.jpg", "b.jpg".' in str(error.value)


def test_a_truth_without_file_names_has_the_ids_of_the_object(tmp_path: Path) -> None:
    truth = ground_truth(images=[{"id": 10}, {"id": 20}])
    content = coco_object([{"id": 10, "file_name": "a.jpg"}, {"id": 20, "file_name": "b.jpg"}], CLASSES)
    metrics = evaluated(tmp_path, content, truth)
    assert metrics.AP > PERFECT
    assert metrics.notes == ()


def test_among_images_of_one_base_name_the_id_of_the_object_decides(tmp_path: Path) -> None:
    truth = ground_truth(images=[{"id": 10, "file_name": "x/a.jpg"}, {"id": 20, "file_name": "y/a.jpg"}])
    content = coco_object([{"id": 10, "file_name": "a.jpg"}, {"id": 20, "file_name": "a.jpg"}], CLASSES)
    assert evaluated(tmp_path, content, truth).AP > PERFECT
    content["annotations"][0]["image_id"] = 30
    content["images"].append({"id": 30, "file_name": "a.jpg"})
    with pytest.raises(ValueError, match="1 results have a file_name that several images"):
        evaluated(tmp_path, content, truth)


def test_a_class_called_otherwise_keeps_its_id(tmp_path: Path) -> None:
    images = [{"id": 10, "file_name": "a.jpg"}, {"id": 20, "file_name": "b.jpg"}]
    metrics = evaluated(tmp_path, coco_object(images, [{"id": 1, "name": "kitten"}, CLASSES[1]]))
    assert metrics.AP > PERFECT
    (note,) = metrics.notes
    assert 'category_id 1 is "kitten" in the results, "cat" in the ground truth' in note


def test_an_id_is_not_taken_for_a_class_that_another_name_of_the_object_means(tmp_path: Path) -> None:
    """Here 3 is a bird and 1 is "dog", which is 3 in the ground truth."""
    images = [{"id": 10, "file_name": "a.jpg"}, {"id": 20, "file_name": "b.jpg"}]
    categories = [{"id": 3, "name": "bird"}, {"id": 1, "name": "dog"}]
    with pytest.raises(ValueError, match='classes that the ground truth does not have: "bird"'):
        evaluated(tmp_path, coco_object(images, categories))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotations": []}', "pass it as annotations="),
        (json.dumps(ground_truth()), "none of its 3 annotations has a score: pass it as annotations="),
        ('{"results": [], "predictions": []}', "with the lists predictions, results"),
        ('{"boxes": []}', "got an object"),
        ("3", "got a int"),
        ("[1,", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_results_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dt.json").write_text(text)
    with pytest.raises(ValueError, match=r"dt\.json") as error:
        read_results(tmp_path / "dt.json")
    assert message in str(error.value)


def test_rows_that_are_no_results_are_left_to_the_evaluator(tmp_path: Path) -> None:
    (tmp_path / "dt.json").write_text(
        '{"annotations": [3, {"score": 1, "image_id": [1]}], "images": [{"id": 1}]}'
    )
    rows = read_results(tmp_path / "dt.json")
    with pytest.raises(ValueError, match="1 of 2 results: is a int, not an object"):
        CocoEvaluator(ground_truth()).evaluate(rows)


def test_a_class_is_not_the_empty_root_of_its_name(tmp_path: Path) -> None:
    """Roboflow's root category has the name of a class; here, its id is that of the class in the object."""
    truth = ground_truth(categories=[{"id": 0, "name": "cat"}, *CLASSES])
    images = [{"id": 10, "file_name": "a.jpg"}, {"id": 20, "file_name": "b.jpg"}]
    content = coco_object(images, [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}])
    for row in content["annotations"]:
        row["category_id"] = {1: 0, 3: 1}[row["category_id"]]
    assert evaluated(tmp_path, content, truth).AP > PERFECT


@pytest.mark.parametrize(
    ("score", "place"),
    [({"confidence": 0.9}, '"confidence"'), ({"attributes": {"score": 0.9}}, '"attributes"')],
)
def test_scores_of_another_name_are_told(tmp_path: Path, score: dict[str, Any], place: str) -> None:
    rows = [{**row, **score} for row in perfect_results(ground_truth())]
    for row in rows:
        del row["score"]
    with pytest.raises(ValueError, match=f"has its scores under {place}"):
        evaluated(tmp_path, {"annotations": rows})


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is no regular file"):
        read_results(tmp_path / "pipe")
