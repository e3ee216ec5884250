"""One rule in both verbs: what `train` reads of a file and what `evaluate annotations=` reads of it agree."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detector.coco.annotations import CocoAnnotations
from detector.coco.reader import read_coco
from detector.coco.truth_reader import read_ground_truth
from detector.evaluation.coco import CocoEvaluator
from tests.coco.small_coco import as_coco, valid, write_dataset
from tests.evaluation.problems import perfect_results


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path)


def as_training(
    root: Path, content: dict[str, Any], caplog: pytest.LogCaptureFixture, **options: Any
) -> tuple[list[dict[str, Any]] | None, str]:
    """What the reader of training and validation data makes of it: its annotations, words."""
    path = _write(root / "train.json", content)
    return _outcome(lambda: read_coco(path, images_dir=root / "images", **options), caplog)


def as_truth(
    root: Path, content: dict[str, Any], caplog: pytest.LogCaptureFixture, **options: Any
) -> tuple[list[dict[str, Any]] | None, str]:
    """What the reader of a ground truth makes of it."""
    path = _write(root / "val.json", content)
    return _outcome(lambda: read_ground_truth(path, **options).annotations, caplog)


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content), "utf-8")
    return path


def _outcome(
    read: Callable[[], CocoAnnotations], caplog: pytest.LogCaptureFixture
) -> tuple[list[dict[str, Any]] | None, str]:
    caplog.clear()
    try:
        with caplog.at_level(logging.WARNING):
            annotations = read()
    except ValueError as error:
        return None, str(error)
    return as_coco(annotations)["annotations"], caplog.text


BOTH = pytest.mark.parametrize("read", [as_training, as_truth], ids=["train", "evaluate"])


def changed(**changes: Any) -> dict[str, Any]:
    content = valid()
    content["annotations"][1].update(changes)
    return content


# --- crowds


@BOTH
@pytest.mark.parametrize("value", ["false", "False", "0"])
def test_a_text_that_says_no_is_no_crowd_and_is_told(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], value: object
) -> None:
    annotations, words = read(root, changed(iscrowd=value), caplog)
    assert sum(a["iscrowd"] for a in annotations) == 1
    assert "1 annotation has" in words
    assert '"iscrowd"' in words


@BOTH
@pytest.mark.parametrize("value", ["true", "1", 3])
def test_a_text_that_says_yes_is_a_crowd_and_is_told(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], value: object
) -> None:
    annotations, words = read(root, changed(iscrowd=value), caplog)
    assert sum(a["iscrowd"] for a in annotations) == 2
    assert '"iscrowd"' in words


@BOTH
@pytest.mark.parametrize("value", ["maybe", [], [1], {"a": 1}, float("nan"), 10**400])
def test_a_crowd_without_meaning_is_a_bad_annotation(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], value: object
) -> None:
    annotations, words = read(root, changed(iscrowd=value), caplog)
    assert annotations is None
    assert "annotation 4" in words
    assert "neither 0 nor 1" in words
    kept, _ = read(root, changed(iscrowd=value), caplog, on_bad_box="drop")
    assert len(kept) == 3


# --- areas


@BOTH
@pytest.mark.parametrize("value", [-1, 0, None, float("nan"), float("inf"), "200", [], 10**400])
def test_an_area_that_is_none_is_the_box_s_and_is_told(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], value: object
) -> None:
    annotations, words = read(root, changed(area=value), caplog)
    assert sorted(a["area"] for a in annotations) == [99.5, 200, 900, 1600]
    assert '1 annotation has no "area" above 0' in words


@BOTH
def test_missing_areas_are_counted(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]]
) -> None:
    content = valid()
    for annotation in content["annotations"]:
        del annotation["area"]
    assert "4 annotations have" in read(root, content, caplog)[1]


# --- boxes


@BOTH
@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([63.9999999999, 10, 5, 5], "below 0.01 pixels"),
        ([10, 47.9999999999, 5, 5], "below 0.01 pixels"),
        ([10, 10, 1e-6, 20], "below 0.01 pixels"),
        ([10, 10, 5000, 5000], "far beyond its 64 x 48 image"),
        ([0.2, 0.3, 0.4, 0.1], "fractions"),
        (["1", "2", "3", "4"], "texts"),
        ([1, 2, 3, 10**400], "not four finite numbers"),
        ([1, 2, True, 4], "not four finite numbers"),
        ({"x": 1}, "not four finite numbers"),
        ("1,2,3,4", "not four finite numbers"),
    ],
)
def test_a_bad_box_is_named_or_dropped(
    root: Path,
    caplog: pytest.LogCaptureFixture,
    read: Callable[..., tuple[Any, str]],
    box: object,
    words: str,
) -> None:
    annotations, log = read(root, changed(bbox=box, area=200), caplog)
    assert annotations is None
    assert "annotation 4" in log
    assert words in log
    assert "on_bad_box=drop" in log
    kept, _ = read(root, changed(bbox=box, area=200), caplog, on_bad_box="drop")
    assert len(kept) == 3


@BOTH
def test_a_box_of_texts_does_not_depend_on_the_others(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]]
) -> None:
    content = valid()
    for annotation in content["annotations"]:
        annotation["bbox"] = [str(v) for v in annotation["bbox"]]
    assert "texts" in read(root, content, caplog)[1]
    assert read(root, content, caplog)[0] is None


@BOTH
def test_a_segmentation_alone_is_no_box(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]]
) -> None:
    content = changed(segmentation=[[1, 2, 9, 2, 9, 9]])
    del content["annotations"][1]["bbox"]
    annotations, words = read(root, content, caplog)
    assert annotations is None
    assert "no bbox but a segmentation" in words


@BOTH
@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_an_id_that_is_null_is_said_to_be(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], key: str
) -> None:
    annotations, words = read(root, changed(**{key: None}), caplog)
    assert annotations is None
    assert key in words
    assert "null" in words


@BOTH
@pytest.mark.parametrize("policy", ["error", "drop"])
def test_corners_are_an_error_that_dropping_does_not_hide(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], policy: str
) -> None:
    content = valid()
    content["annotations"] = [
        {"id": i, "image_id": 7, "category_id": 20, "bbox": [30, 20, 50 + i, 45], "iscrowd": 0}
        for i in range(8)
    ]
    annotations, words = read(root, content, caplog, on_bad_box=policy)
    assert annotations is None
    assert "8 of 8 boxes reach beyond their image; read as x1, y1, x2, y2 all would fit" in words
    assert "[x1, y1, x2 - x1, y2 - y1]" in words


@BOTH
@pytest.mark.parametrize("policy", ["error", "drop"])
def test_fractions_are_an_error_that_dropping_does_not_hide(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], policy: str
) -> None:
    content = valid()
    for annotation in content["annotations"]:
        annotation["bbox"] = [v / 64 for v in annotation["bbox"]]
    annotations, words = read(root, content, caplog, on_bad_box=policy)
    assert annotations is None
    assert "all 4 boxes look normalized" in words
    assert "looks like fractions" not in words, "told once, not of each box"


@BOTH
def test_boxes_cut_by_the_border_are_accepted_and_counted(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]]
) -> None:
    annotations, words = read(root, valid(), caplog)
    assert len(annotations) == 4
    assert "1 of 4 boxes reach beyond their image" in words
    assert "annotation 9" in words


# --- ids and objects that come twice


def with_shared_id() -> dict[str, Any]:
    """Five objects, two of them with one id, as a file that was read, extended and written again."""
    content = valid()
    content["annotations"].append(
        {"id": 4, "image_id": 5, "category_id": 20, "bbox": [3, 3, 9, 9], "area": 81, "iscrowd": 0}
    )
    return content


@BOTH
@pytest.mark.parametrize("policy", ["error", "drop"])
def test_different_objects_with_one_id_are_all_read(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], policy: str
) -> None:
    annotations, words = read(root, with_shared_id(), caplog, on_bad_box=policy)
    assert len(annotations) == 5
    assert len({a["id"] for a in annotations}) == 5
    assert "1 annotation has an id that an earlier, different one has" in words
    assert "numbered anew" in words


@BOTH
@pytest.mark.parametrize("id_", [4, 77, None])
def test_an_object_written_twice_is_kept_once(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]], id_: int | None
) -> None:
    content = valid()
    content["annotations"].insert(0, {**content["annotations"][1], "id": id_})
    annotations, words = read(root, content, caplog)
    assert len(annotations) == 4
    assert "1 annotation repeats an earlier one exactly" in words
    assert "numbered anew" not in words, "its id is gone with it"


@BOTH
def test_every_object_twice_is_counted(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]]
) -> None:
    content = valid()
    content["annotations"] += [{**a, "id": 100 + a["id"]} for a in content["annotations"]]
    annotations, words = read(root, content, caplog)
    assert len(annotations) == 4
    assert "4 annotations repeat an earlier one exactly" in words


@BOTH
def test_an_object_that_differs_in_its_class_is_another(
    root: Path, caplog: pytest.LogCaptureFixture, read: Callable[..., tuple[Any, str]]
) -> None:
    content = valid()
    content["annotations"].append({**content["annotations"][1], "id": 50, "category_id": 20})
    assert len(read(root, content, caplog)[0]) == 5


def test_perfect_results_of_an_object_written_twice_are_perfect(root: Path) -> None:
    content = valid()
    content["annotations"].append({**content["annotations"][1], "id": 50})
    path = root / "val.json"
    path.write_text(json.dumps(content))
    evaluator = CocoEvaluator(path)
    assert pytest.approx(1.0) == evaluator.evaluate(perfect_results(valid())).AP


def as_pylabel_writes() -> tuple[dict[str, Any], int]:
    """pylabel 0.1.55 beside an image without labels: one row twice, floats and nulls, ids from 0."""
    content = valid()
    nulls = dict.fromkeys(("segmented", "pose", "truncated", "difficult", "segmentation"))
    for id_, annotation in enumerate(content["annotations"]):
        annotation.update(nulls, id=id_, iscrowd=0.0, bbox=[float(v) for v in annotation["bbox"]])
    content["annotations"].insert(2, dict(content["annotations"][1]))
    for image in content["images"]:
        image.update(folder="images", path=None, depth=None)
    return content, 4


def as_datumaro_writes() -> tuple[dict[str, Any], int]:
    """datumaro 1.13 after a file was read, extended and written again: the new object has an id in use."""
    content = valid()
    for annotation in content["annotations"]:
        annotation.update(segmentation=[], iscrowd=0, bbox=[float(v) for v in annotation["bbox"]])
    new = {"id": 9, "image_id": 7, "category_id": 20, "segmentation": [], "area": 81.0}
    content["annotations"].insert(0, {**new, "bbox": [5.0, 5.0, 9.0, 9.0], "iscrowd": 0})
    return content, 5


@BOTH
@pytest.mark.parametrize("write", [as_pylabel_writes, as_datumaro_writes])
def test_perfect_results_on_files_as_other_tools_write_them(
    root: Path,
    caplog: pytest.LogCaptureFixture,
    read: Callable[..., tuple[Any, str]],
    write: Callable[[], tuple[dict[str, Any], int]],
) -> None:
    content, count = write()
    annotations, words = read(root, content, caplog)
    assert len(annotations) == count
    assert ("repeats an earlier one" in words) == (write is as_pylabel_writes)
    assert ("numbered anew" in words) == (write is as_datumaro_writes)
    truth = {**content, "annotations": annotations}
    assert pytest.approx(1.0) == CocoEvaluator(truth).evaluate(perfect_results(truth)).AP


# --- a ground truth without objects


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (valid() | {"annotations": []}, {}, "is empty"),
        (
            valid() | {"annotations": [a | {"iscrowd": 1} for a in valid()["annotations"]]},
            {},
            "all 4 annotations are crowds",
        ),
        (
            valid() | {"annotations": [a | {"bbox": [1, 2, 0, 4]} for a in valid()["annotations"]]},
            {"on_bad_box": "drop"},
            "all 4 annotations are left out because of evaluation.on_bad_box=drop",
        ),
    ],
)
def test_a_ground_truth_without_objects_is_refused(
    root: Path, content: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    path = root / "val.json"
    path.write_text(json.dumps(content))
    truth = read_ground_truth(path, **options)
    with pytest.raises(ValueError, match=words) as error:
        truth.require_objects()
    assert str(path) in str(error.value)


def test_a_file_under_two_ids_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = valid()
    content["images"].append({**content["images"][0], "id": 99})
    words = as_truth(root, content, caplog)[1]
    assert "1 image file is listed more than once" in words
    assert '"a.jpg"' in words
