"""Results in another format are refused with a guess; boxes that overhang as those of detectors pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.result_boxes import check_boxes
from tests.evaluation.problems import ground_truth

W, H = 100, 80  # of the images of `ground_truth`


def boxes_inside(count: int = 40) -> np.ndarray:
    random = np.random.default_rng(0)
    sides = random.uniform(5, 50, (count, 2))
    return np.hstack([random.uniform(0, 1, (count, 2)) * ([W, H] - sides), sides])


def checked(boxes: Any, truth: dict[str, Any] | None = None) -> tuple[str, ...]:
    rows = [
        {"image_id": 10, "category_id": 1, "bbox": [float(v) for v in box], "score": 0.5}
        for box in np.asarray(boxes)
    ]
    evaluator = CocoEvaluator(truth or ground_truth())
    return check_boxes(evaluator.rows(rows), evaluator.truth, source="dt.json")


def test_right_boxes_pass() -> None:
    assert checked(boxes_inside()) == ()
    assert checked(np.zeros((0, 4))) == ()


def test_overhang_of_unclipped_detectors_passes() -> None:
    boxes = boxes_inside()
    boxes += np.random.default_rng(1).normal(0, 6, boxes.shape)
    boxes[:, 2:] = np.abs(boxes[:, 2:])
    assert (boxes[:, :2] < 0).any()
    assert checked(boxes) == ()


def test_corners_are_refused_with_counts_and_the_guess() -> None:
    boxes = boxes_inside()
    boxes[:, 2:] += boxes[:, :2]
    with pytest.raises(ValueError, match=r"^dt.json: \d+ of 40 boxes reach beyond their image; ") as error:
        checked(boxes)
    assert "read as x1, y1, x2, y2 all would fit" in str(error.value)
    assert 'in the 100 x 80 image 10 ("a.jpg")' in str(error.value)


def test_of_few_boxes_it_is_only_a_note() -> None:
    (note,) = checked([[60, 50, 90, 75], [5, 5, 30, 30]])
    assert "read as x1, y1, x2, y2" in note


def test_fractions_are_refused() -> None:
    with pytest.raises(ValueError, match="look normalized"):
        checked(boxes_inside() / [W, H, W, H])


def test_boxes_far_outside_are_refused_or_counted() -> None:
    boxes = boxes_inside()
    boxes[0] = [10, 10, 5000, 5000]
    (note,) = checked(boxes)
    assert note.startswith("dt.json: 1 of 40 boxes lie outside of their image")
    assert "[10, 10, 5000, 5000]" in note
    with pytest.raises(ValueError, match="40 of 40 boxes lie outside of their image, or reach beyond"):
        checked(boxes_inside() + np.array([150, 0, 0, 0]))


def test_without_sizes_nothing_is_known() -> None:
    truth = ground_truth(images=[{"id": 10}, {"id": 20, "width": 0, "height": "x"}])
    assert checked(boxes_inside() + np.array([150, 0, 0, 0]), truth) == ()


def test_boxes_in_percent_are_asked_for() -> None:
    truth = ground_truth()
    for image in truth["images"]:
        image |= {"width": 640, "height": 480}
    random = np.random.default_rng(1)
    starts = random.uniform(0, 50, (40, 2))
    percent = np.hstack([starts, random.uniform(0.2, 1, (40, 2)) * (100 - starts)])
    (note,) = checked(percent, truth)
    assert "all 40 boxes lie in the first 100 x 100 pixels" in note
    assert checked(percent * [6.4, 4.8, 6.4, 4.8], truth) == ()


def test_huge_numbers_are_told_without_warnings(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(ValueError, match="1 of 1 boxes lie outside"):
        checked([[1e308] * 4])
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_boxes_of_half_size_images_are_asked_for() -> None:
    (note,) = checked(boxes_inside() / 2)
    assert "all 40 boxes lie in the upper left 49% of the width and height" in note
    assert checked(boxes_inside(10) / 2) == ()  # few may lie there by accident
