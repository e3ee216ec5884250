"""Masks and keypoints are read into flat arrays, strictly, and only if they are asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from detector.coco.annotations import CocoAnnotations
from detector.coco.ground_truth import GroundTruth
from detector.coco.truth_reader import read_ground_truth
from tests.evaluation.problems import annotation
from tests.shared import shared_path

TRIANGLE = [10.0, 10.0, 30.0, 10.0, 10.0, 30.0]
SQUARE = [50.5, 20, 60, 20, 60, 30, 50, 30]
NAMES = ["nose", "left_eye", "right_eye"]


def truth(*shapes: dict[str, Any], **image: Any) -> dict[str, Any]:
    """Objects with these masks or keypoints in one image, and a class without keypoints."""
    return {
        "images": [{"id": 8, "file_name": "a.jpg", "height": 80, "width": 100, **image}],
        "categories": [{"id": 1, "name": "cat", "keypoints": NAMES}, {"id": 2, "name": "cup"}],
        "annotations": [
            annotation(number, 8, 1, [5.0 + number, 5.0, 60.0, 60.0]) | shape
            for number, shape in enumerate(shapes, start=1)
        ],
    }


def read(content: Any, **options: Any) -> CocoAnnotations:
    return read_ground_truth(content, tasks=("segm", "keypoints"), source="a.json", **options).annotations


def masks_of(content: Any, **options: Any) -> Any:
    masks = read(content, **options).masks
    assert masks is not None
    return masks


def test_nothing_is_read_unasked() -> None:
    """Not even what is wrong: boxes do not need it."""
    annotations = read_ground_truth(truth({"segmentation": "bad", "keypoints": 7})).annotations
    assert annotations.masks is None
    assert annotations.keypoints is None


def test_polygons_of_several_parts() -> None:
    masks = masks_of(truth({"segmentation": [TRIANGLE, SQUARE]}, {}, {"segmentation": [SQUARE]}))
    assert [part.tolist() for part in masks.polygons(0)] == [
        np.reshape(TRIANGLE, (-1, 2)).tolist(),
        np.reshape(SQUARE, (-1, 2)).tolist(),
    ]
    assert masks.polygons(1) == []
    assert [len(part) for part in masks.polygons(2)] == [4]
    assert masks.has_mask.tolist() == [True, False, True]


@pytest.mark.parametrize("form", ["numbers", "text", "bytes"])
def test_run_lengths(form: str) -> None:
    runs = {"size": [80, 100], "counts": [2000, 3, 77, 3, 5917]}
    data = mask.frPyObjects(runs, 80, 100)["counts"]
    counts = {"numbers": runs["counts"], "text": data.decode(), "bytes": data}[form]
    masks = masks_of(truth({}, {"segmentation": {"size": [80, 100], "counts": counts}}))
    pixels = mask.decode({"size": [80, 100], "counts": masks.run_lengths(1)})
    assert pixels.sum() == 6
    assert pixels[:3, 25:27].all()
    assert masks.has_mask.tolist() == [False, True]


@pytest.mark.parametrize("nothing", [[], None])
def test_an_object_may_have_a_box_alone(nothing: Any) -> None:
    masks = masks_of(truth({"segmentation": nothing}, {"segmentation": [TRIANGLE]}))
    assert masks.has_mask.tolist() == [False, True]


def test_masks_and_keypoints_follow_their_images() -> None:
    content = truth({"segmentation": [TRIANGLE], "keypoints": [1, 2, 2] * 3})
    content["images"].append({"id": 3, "file_name": "b.jpg", "height": 90, "width": 90})
    content["annotations"].append(
        annotation(9, 3, 1, [1.0, 1.0, 70.0, 70.0], segmentation=[SQUARE], keypoints=[3, 4, 1] * 3)
    )
    annotations = read(content)  # image 3 comes before image 8
    assert annotations.masks is not None
    assert annotations.keypoints is not None
    assert [len(annotations.masks.polygons(row)[0]) for row in (0, 1)] == [4, 3]
    assert [annotations.keypoints.of(row)[0].tolist() for row in (0, 1)] == [[3, 4, 1], [1, 2, 2]]
    cats = annotations.of_categories(np.array([0])).select_images(np.array([1]))
    assert cats.masks is not None
    assert cats.class_names == ("cat",)
    assert cats.masks.polygons(0)[0].tolist() == np.reshape(TRIANGLE, (-1, 2)).tolist()


def test_keypoints_may_be_missing_and_are_counted() -> None:
    shapes: tuple[dict[str, Any], ...] = (
        {"keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0]},
        {},
        {"keypoints": [1, 2, 2] * 3, "num_keypoints": 1},
    )
    keypoints = read(truth(*shapes)).keypoints
    assert keypoints is not None
    assert keypoints.labeled.tolist() == [2, 0, 1]
    assert keypoints.of(1).tolist() == [[0, 0, 0]] * 3


def test_an_unknown_area_is_a_share_of_the_box() -> None:
    content = truth({"keypoints": [1, 2, 2] * 3}, {"keypoints": [1, 2, 2] * 3})
    del content["annotations"][0]["area"]
    keypoints = read(content).keypoints
    assert keypoints is not None
    assert keypoints.areas.tolist() == pytest.approx([0.53 * 3600, 3600])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"segmentation": [[1, 2, 3, 4]]}, "the four numbers [1, 2, 3, 4], which pycocotools reads as a box"),
    ({"segmentation": [[]]}, "a polygon of no points"),
    ({"segmentation": [[1, 2]]}, "a polygon of 1 points, expected three or more"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "a polygon of 7 numbers, an odd count"),
    ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "expected polygons of finite numbers"),
    ({"segmentation": [[1, 2, 3, 4, 5, 10**400]]}, "expected polygons of finite numbers"),
    ({"segmentation": TRIANGLE}, "is one list of numbers: write a list of polygons"),
    ({"segmentation": [[10, 10, 10, 20, 10, 30]]}, "its polygons enclose nothing"),
    ({"segmentation": [[10, 10, 105, 20, 10, 30]]}, "its polygon leaves its 100 x 80 image"),
    ({"keypoints": [10**400, 2, 2] * 3}, "hold a number that is not finite"),
    ({"segmentation": "mask.png"}, "'mask.png' is neither a list of polygons nor run lengths"),
    ({"segmentation": {"counts": [8000]}}, "is neither a list of polygons nor run lengths"),
    (
        {"segmentation": {"size": 80, "counts": [8000]}},
        "the size 80 of its run lengths is not [height, width]",
    ),
    ({"segmentation": {"size": [80, 100], "counts": [-1]}}, "are no text and no whole numbers"),
    ({"segmentation": {"size": [100, 80], "counts": [10, 7990]}}, "is not the [80, 100] of its image"),
    ({"segmentation": {"size": [80, 100], "counts": [10, 799]}}, "do not add up to height x width"),
    ({"segmentation": {"size": [80, 100], "counts": "61X13m"}}, "do not add up to height x width"),
    ({"segmentation": {"size": [80, 100], "counts": [8000]}}, "its mask is empty"),
    (
        {"keypoints": [1, 2, 2]},
        'keypoints has 3 numbers, but its category "cat" names 3 keypoints: expected 9',
    ),
    ({"keypoints": [1, 2, 2], "category_id": 2}, 'its category "cup" names 0 keypoints, it has 3 numbers'),
    ({"keypoints": [1, 2, 3] * 3}, "a keypoint has the visibility 3. Write 0 for unlabeled"),
    ({"keypoints": ["a"] * 9}, "is no list of finite numbers"),
    ({"keypoints": 9}, "keypoints 9 is no list of finite numbers"),
]


@pytest.mark.parametrize(("shape", "message"), BAD)
def test_what_is_wrong_is_said_with_its_place(shape: dict[str, Any], message: str) -> None:
    content = truth({"segmentation": [TRIANGLE], "keypoints": [1, 2, 2] * 3}, shape)
    with pytest.raises(ValueError, match=r"a\.json: 1 annotation problem:") as error:
        read(content)
    assert 'image 8 ("a.jpg"), annotation 2: ' in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("shape", [shape for shape, _ in BAD])
def test_a_file_and_a_dictionary_are_refused_alike(shape: dict[str, Any], tmp_path: Path) -> None:
    """Though msgspec checks their numbers, and makes all of them float."""
    content = truth({"segmentation": [TRIANGLE]}, shape)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="1 annotation problem:") as of_file:
        read(path)
    with pytest.raises(ValueError, match="1 annotation problem:") as of_dictionary:
        read(content)
    assert str(of_file.value).replace(str(path), "a.json") == str(of_dictionary.value)


def test_tuples_are_no_polygons() -> None:
    with pytest.raises(ValueError, match="is neither a list of polygons nor run lengths"):
        read(truth({"segmentation": (TRIANGLE,)}))


def test_all_is_said_at_once_with_problems_of_boxes() -> None:
    content = truth(*(shape for shape, _ in BAD), {"bbox": [0, 0, 0, 1]})
    with pytest.raises(ValueError, match=f"{len(BAD) + 1} annotation problems") as error:
        read(content)
    assert "image 8" in str(error.value)


def test_drop_goes_on_without_them(caplog: pytest.LogCaptureFixture) -> None:
    good = {"segmentation": [SQUARE], "keypoints": [1, 2, 2] * 3}
    annotations = read(truth(*(shape for shape, _ in BAD), good), on_bad_box="drop")
    assert annotations.annotation_ids.tolist() == [len(BAD) + 1]
    assert annotations.masks is not None
    assert annotations.masks.polygons(0)[0].tolist() == np.reshape(SQUARE, (-1, 2)).tolist()
    assert f"left out because of {len(BAD)} annotation problems" in caplog.text


def test_a_mask_needs_the_size_of_its_image() -> None:
    with pytest.raises(ValueError, match="its image has no height and width, which masks need"):
        read(truth({"segmentation": [TRIANGLE]}, height=None, width=None))


def test_a_corner_on_the_border_is_inside() -> None:
    assert masks_of(truth({"segmentation": [[0, 0, 100.5, 0, 100, 80.5]]})).has_mask.all()


def test_a_file_and_a_dictionary_are_read_alike(tmp_path: Path) -> None:
    content = truth({"segmentation": [TRIANGLE, SQUARE], "keypoints": [1, 2, 2] * 3}, {})
    (tmp_path / "a.json").write_text(json.dumps(content))
    for one, other in zip(_arrays(content), _arrays(tmp_path / "a.json"), strict=True):
        assert np.array_equal(one, other)


def _arrays(content: Any) -> list[np.ndarray]:
    annotations = read(content)
    assert annotations.masks is not None
    assert annotations.keypoints is not None
    return [*vars(annotations.masks).values(), *vars(annotations.keypoints).values()]


@pytest.mark.parametrize(
    "path",
    ["data/coco_cc/train.json", "data/coco_cc/val.json", "fixtures/eval/coco100/gt.json"],
)
def test_real_files_are_read_whole(path: str) -> None:
    found = read_ground_truth(shared_path(path), tasks=("segm",))
    assert isinstance(found, GroundTruth)
    assert found.annotations.bad_count == 0
    assert found.annotations.masks is not None
    assert found.annotations.masks.has_mask.all()
