"""Results count for the image and the class that they name, and names that contradict ids are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from detector.evaluation.coco import CocoEvaluator
from tests.evaluation.problems import PERFECT, annotation, ground_truth, perfect_results

FILES = {10: "a.jpg", 20: "b.jpg"}


def changed(**keys: Callable[..., Any]) -> list[dict[str, Any]]:
    """Perfect results with other values of `keys`; None: without the key."""
    rows = [r | {key: value(r) for key, value in keys.items()} for r in perfect_results(ground_truth())]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def refused(results: list[dict[str, Any]], truth: dict[str, Any] | None = None) -> str:
    with pytest.raises(ValueError, match=r"^dt\.json: ") as error:
        CocoEvaluator(truth or ground_truth()).evaluate(results, source="dt.json")
    return str(error.value)


@pytest.mark.parametrize("folder", ["", "images/", "/data/set/", ".\\images\\"])
@pytest.mark.parametrize("ids", [{10: 1, 20: 2}, {10: None, 20: None}, {10: 10, 20: 20}])
def test_a_file_name_tells_the_image(folder: str, ids: dict[int, Any]) -> None:
    rows = changed(image_id=lambda r: ids[r["image_id"]], file_name=lambda r: folder + FILES[r["image_id"]])
    metrics = CocoEvaluator(ground_truth()).evaluate(rows)
    assert metrics.AP > PERFECT
    noted = "3 results were matched to their images by file_name"
    assert [noted in note for note in metrics.notes] == [True] * (ids[10] == 1)


def test_an_id_of_another_image_is_refused() -> None:
    """The place among the files, which meets ids of the annotations by accident."""
    rows = changed(image_id=lambda r: 30 - r["image_id"], file_name=lambda r: f"x/{FILES[r['image_id']]}")
    message = refused(rows)
    assert "3 results name one image by image_id and another by file_name" in message
    assert '"x/a.jpg" with image_id 20, which is "b.jpg" in the ground truth (its "x/a.jpg" is 10)' in message
    assert "detector predict annotations=" in message


def test_a_file_that_is_not_there_is_refused_though_its_id_is() -> None:
    message = refused(changed(file_name=lambda _: "other.jpg"))
    assert 'which is "a.jpg" in the ground truth (it has no "other.jpg")' in message


def test_files_of_equal_base_names_are_told_apart_by_their_folders() -> None:
    truth = ground_truth()
    truth["images"][0]["file_name"], truth["images"][1]["file_name"] = "x/1.jpg", "y/1.jpg"
    files = {10: "images/x/1.jpg", 20: "images/y/1.jpg"}
    rows = changed(image_id=lambda _: None, file_name=lambda r: files[r["image_id"]])
    assert CocoEvaluator(truth).evaluate(rows).AP > PERFECT
    assert "several images of the ground truth" in refused(
        changed(image_id=lambda _: None, file_name=lambda _: "1.jpg"), truth
    )
    with_ids = changed(file_name=lambda _: "1.jpg")  # which tell
    assert CocoEvaluator(truth).evaluate(with_ids).AP > PERFECT


def test_two_files_are_not_taken_for_one_image() -> None:
    files = {10: "x/a.jpg", 20: "y/a.jpg"}
    message = refused(changed(image_id=lambda _: None, file_name=lambda r: files[r["image_id"]]))
    assert (
        '1 files have the base name of an image that another file has, too: "x/a.jpg" and "y/a.jpg"'
        in message
    )


def test_names_without_names_in_the_ground_truth() -> None:
    truth = ground_truth(images=[{"id": 10}, {"id": 20}])
    assert CocoEvaluator(truth).evaluate(changed(file_name=lambda _: "x.jpg")).AP > PERFECT
    assert "It names no files" in refused(
        changed(image_id=lambda _: None, file_name=lambda _: "x.jpg"), truth
    )


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("a.jpg", "b.jpg"), ("a", "b")),
        (("a.jpg", "b.jpg"), ("a.jpg", "b.jpg")),
        (("x/a.jpg", "x/b.jpg"), ("a", "b")),
        (("000123.jpg", "000124.jpg"), ("000123", "000124")),
        (("000123.jpg", "000124.jpg"), (123, 124)),
        (("a.v1.jpg", "b.v1.jpg"), ("a.v1", "b.v1")),
    ],
)
def test_stems_may_be_ids(names: tuple[str, str], ids: tuple[Any, Any]) -> None:
    truth = ground_truth()
    for image, name in zip(truth["images"], names, strict=True):
        image["file_name"] = name
    rows = changed(image_id=lambda r: dict(zip((10, 20), ids, strict=True))[r["image_id"]])
    metrics = CocoEvaluator(truth).evaluate(rows, source="dt.json")
    assert metrics.AP > PERFECT
    (note,) = metrics.notes
    assert note.startswith("dt.json: The results call their images by file name or its stem (")
    assert f'for "{names[0]}"' in note


@pytest.mark.parametrize("ids", [(20, 21), ("20", "21"), ("10", "20"), (21, 99)])
def test_stems_that_may_be_ids_of_other_images_are_refused(ids: tuple[Any, Any]) -> None:
    truth = ground_truth()
    for image, name in zip(truth["images"], ("20.jpg", "21.jpg"), strict=True):
        image["file_name"] = name
    rows = changed(image_id=lambda r: dict(zip((10, 20), ids, strict=True))[r["image_id"]])
    assert "results name images that the ground truth does not have" in refused(rows, truth)


def test_ids_that_are_also_names_of_other_images_are_asked_for() -> None:
    truth = ground_truth()
    for image, name in zip(truth["images"], ("20.jpg", "10.jpg"), strict=True):
        image["file_name"] = name
    metrics = CocoEvaluator(truth).evaluate(perfect_results(ground_truth()), source="dt.json")
    assert metrics.AP > PERFECT
    (note,) = metrics.notes
    assert '10 is the id of "20.jpg" and may mean "10.jpg"' in note
    named = changed(file_name=lambda r: {10: "20.jpg", 20: "10.jpg"}[r["image_id"]])
    assert CocoEvaluator(truth).evaluate(named).notes == ()


def test_a_class_may_be_named() -> None:
    names = {1: " Cat", 3: "dog"}
    for ids in ({1: None, 3: None}, {1: 1, 3: 3}, {1: 0, 3: 2}):
        rows = changed(
            category_id=lambda r, ids=ids: ids[r["category_id"]],
            category_name=lambda r: names[r["category_id"]],
        )
        assert CocoEvaluator(ground_truth()).evaluate(rows).AP > PERFECT


def test_a_class_with_the_id_of_another_is_refused() -> None:
    """As a tool writes it that counts a model's classes from 0."""
    rows = changed(category_name=lambda r: {1: "dog", 3: "cat"}[r["category_id"]])
    message = refused(rows)
    assert "3 results name one class by category_id and another by name" in message
    assert 'category_id 1 is "dog" in the results, "cat" in the ground truth' in message


def test_a_class_of_another_name_is_told_and_taken_by_its_id() -> None:
    metrics = CocoEvaluator(ground_truth()).evaluate(changed(category_name=lambda r: f"n{r['category_id']}"))
    assert metrics.AP > PERFECT
    assert (
        '3 results call their class otherwise than the ground truth: category_id 1 is "n1"'
        in metrics.notes[0]
    )


def test_classes_that_share_a_name_are_told_apart_by_their_ids() -> None:
    truth = ground_truth(categories=[{"id": 1, "name": "cat"}, {"id": 3, "name": "cat"}])
    metrics = CocoEvaluator(truth).evaluate(changed(category_name=lambda _: "cat"))
    assert metrics.AP > PERFECT
    assert metrics.notes == ()


def test_without_an_id_and_a_name_it_is_missing() -> None:
    assert "has no image_id" in refused(changed(image_id=lambda _: None, file_name=lambda _: ""))


def test_scores_in_a_ground_truth_are_told() -> None:
    truth = ground_truth()
    truth["annotations"][0]["score"] = 0.5
    (note,) = CocoEvaluator(truth, source="gt.json").evaluate(perfect_results(truth)).notes
    assert note.startswith("gt.json: 1 of 3 annotations have a score")
    assert "predictions=" in note


def test_predictions_in_the_place_of_a_ground_truth_are_told() -> None:
    with pytest.raises(ValueError, match="pass it as predictions="):
        CocoEvaluator({"annotations": perfect_results(ground_truth())})


def test_ids_alone_are_left_as_they_are() -> None:
    truth = ground_truth(annotations=[annotation(1, 10, 1, [5.0, 5.0, 20.0, 20.0])])
    assert CocoEvaluator(truth).evaluate(perfect_results(truth)).notes == ()
