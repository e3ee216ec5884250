"""Results carry the ids of the annotations that they will be evaluated against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.commands.predicted_ids import PredictedIds, counted_ids, ids_of_annotations
from tests.evaluation.problems import ground_truth


def ids(
    tmp_path: Path, *files: str, classes: tuple[str, ...] = ("cat", "dog"), **changes: Any
) -> PredictedIds:
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth(**changes)))
    paths = [Path(file) for file in files]
    trained = range(len(classes))
    return ids_of_annotations(str(tmp_path / "gt.json"), paths, class_names=classes, category_ids=trained)


def test_ids_are_those_of_the_file_names_and_classes(tmp_path: Path) -> None:
    actual = ids(tmp_path, "/data/b.jpg", "/data/a.jpg", classes=("dog", "cat"))
    assert (actual.image_ids, actual.category_ids, actual.note) == ([20, 10], [3, 1], "")


def test_images_that_are_not_predicted_are_told(tmp_path: Path) -> None:
    assert "1 of 2 images" in ids(tmp_path, "b.jpg").note


def test_boxes_of_the_annotations_do_not_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fractions = [{"id": 1, "image_id": 10, "category_id": 1, "bbox": [0.1, 0.1, 0.5, 0.5]}]
    assert ids(tmp_path, "a.jpg", annotations=fractions).image_ids == [10]
    assert not caplog.text


def test_without_annotations_files_are_counted() -> None:
    actual = counted_ids([Path("a"), Path("b")], (7, 9))
    assert ([*actual.image_ids], actual.category_ids) == ([1, 2], (7, 9))


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        (["a.jpg", "c.jpg"], {}, "1 of 2 files are not among its 2 images: c.jpg"),
        (["x/a.jpg", "y/a.jpg"], {}, "1 of its images may be two files: x/a.jpg and y/a.jpg"),
        (
            ["1.jpg"],
            {"images": [{"id": 10, "file_name": "x/1.jpg"}, {"id": 20, "file_name": "y/1.jpg"}]},
            "1 files may be several of its images: 1.jpg",
        ),
        (
            ["a.jpg"],
            {"classes": ("cat", "bird")},
            "1 classes of the checkpoint are not among its categories: bird",
        ),
        (["a.jpg"], {"images": [{"id": 10}, {"id": 20}]}, "1 of 1 files are not among its 2 images"),
    ],
)
def test_what_has_no_id_is_an_error(
    tmp_path: Path, files: list[str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^annotations=.*gt\.json: ") as error:
        ids(tmp_path, *files, **changes)
    assert message in str(error.value)


def test_classes_that_share_a_name_are_those_of_the_training(tmp_path: Path) -> None:
    twice = [{"id": 0, "name": "cat"}, {"id": 5, "name": "cat"}, {"id": 3, "name": "dog"}]
    assert ids(tmp_path, "a.jpg", categories=twice).category_ids == [0, 3]
