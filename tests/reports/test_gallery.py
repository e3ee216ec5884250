"""Which images are shown, and what is drawn on them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from detector.evaluation.coco import CocoEvaluator
from detector.reports.gallery import Found, examples, most_changed, worst
from tests.evaluation.problems import ground_truth, perfect_results


def test_the_greatest_changes_come_first_and_no_change_is_none() -> None:
    before = np.array([0.5, 0.5, 0.5, 0.5, 0.4])
    after = np.array([0.6, 0.9, 0.5, 0.1, 0.3])
    assert most_changed(before, after, count=3) == ([1, 0], [3, 4])
    assert most_changed(before, after, count=1) == ([1], [3])


def test_perfect_images_are_not_the_worst() -> None:
    assert worst(np.array([0.5, 1.0, 0.0]), count=3) == [2, 0]


def shown(threshold: float) -> list[np.ndarray]:
    """The ground truth and the drawing of a model that finds all at 0.9, of the image with id 10."""
    truth = ground_truth()
    evaluator = CocoEvaluator(truth)
    results = perfect_results(truth)
    found = Found.of(evaluator.matched(results), score=threshold)
    asked: list[Any] = []

    def read(image_id: Any) -> np.ndarray:
        asked.append(image_id)
        return np.full((80, 100, 3), 128, dtype=np.uint8)

    (example,) = examples([0], {"model": found}, read=read)
    assert (example.image, asked) == ("10", [10])
    captions = [caption for caption, _ in example.pictures]
    assert captions == ["ground truth", f"model: F1 {1 if threshold < 0.9 else 0:.2f}"]
    pictures = []
    for _, address in example.pictures:
        kind, _, data = address.partition(",")
        assert kind == "data:image/jpeg;base64"
        pictures.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int))
    return pictures


def test_pictures_are_small_and_show_the_boxes() -> None:
    truth, found = shown(0.5)
    assert max(truth.shape) == 480
    assert (abs(truth - 128) > 60).any()
    assert (abs(found - 128) > 60).any()


def test_detections_below_the_score_are_not_drawn() -> None:
    _, found = shown(0.95)
    assert (abs(found - 128) < 10).all()
