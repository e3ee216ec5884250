"""Detections find the objects that pycocotools lets them find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import AREAS, IOUS
from tests.evaluation.problems import (
    annotation,
    by_pycocotools,
    crowded_problem,
    ground_truth,
    random_problem,
)


@pytest.mark.parametrize("make", [random_problem, crowded_problem])
@pytest.mark.parametrize("seed", range(30))
def test_equals_pycocotools(seed: int, make: Any) -> None:
    truth, results = make(seed)
    results.sort(key=lambda r: (r["image_id"], -r["score"]))
    run = by_pycocotools(truth, results)
    images = len(run.params.imgIds)
    for number, matches in enumerate(CocoEvaluator(truth).matched(results).classes):
        for area in range(len(AREAS)):
            start = (number * len(AREAS) + area) * images
            entries = [(i, e) for i, e in enumerate(run.evalImgs[start : start + images]) if e]
            if not entries:
                assert not matches.objects.any()
                assert matches.images.size == 0
                continue
            scores = np.concatenate([e["dtScores"] for _, e in entries])
            order = np.argsort(-scores, kind="mergesort")
            image = np.concatenate([[i] * len(e["dtScores"]) for i, e in entries])[order]
            np.testing.assert_array_equal(matches.images, image)
            np.testing.assert_array_equal(matches.scores, scores[order])
            for ours, name in ((matches.matched, "dtMatches"), (matches.ignored, "dtIgnore")):
                theirs = np.concatenate([e[name] for _, e in entries], axis=1)[:, order]
                np.testing.assert_array_equal(ours[area], theirs != 0)
            objects = np.zeros(images)
            for i, entry in entries:
                objects[i] = np.count_nonzero(entry["gtIgnore"] == 0)
            np.testing.assert_array_equal(matches.objects[area], objects)


def of_one_class(boxes: list[list[float]], results: list[list[float]]) -> Any:
    truth = ground_truth(annotations=[annotation(n, 10, 1, box) for n, box in enumerate(boxes, start=1)])
    rows = [
        {"image_id": 10, "category_id": 1, "bbox": box, "score": 0.9 - 0.1 * n}
        for n, box in enumerate(results)
    ]
    return next(iter(CocoEvaluator(truth).matched(rows).classes))


def test_the_last_of_equally_near_objects_is_taken() -> None:
    matches = of_one_class([[9, 0, 10, 10], [11, 0, 10, 10]], [[10, 0, 10, 10]] * 3)
    np.testing.assert_array_equal(matches.matched_object, [1, 0, -1])


def test_overlaps_are_those_at_the_lowest_threshold() -> None:
    matches = of_one_class([[0, 0, 10, 10]], [[0, 0, 10, 8], [50, 50, 10, 10]])
    np.testing.assert_allclose(matches.overlaps, [0.8, 0.0])
    np.testing.assert_array_equal(matches.matched[0, :, 0], IOUS <= 0.8)


def test_what_was_found_is_named() -> None:
    truth = ground_truth(
        annotations=[
            annotation(7, 20, 1, [0, 0, 10, 10]),
            annotation(8, 10, 3, [0, 0, 10, 10]),
            annotation(9, 10, 1, [50, 50, 10, 10]),
            annotation(10, 10, 1, [0, 0, 10, 10]),
        ]
    )
    rows = [
        {"image_id": image, "category_id": 1, "bbox": box, "score": score}
        for image, box, score in (
            (20, [0, 0, 10, 9], 0.7),
            (10, [0, 0, 10, 9], 0.9),
            (10, [30, 0, 9, 9], 0.8),
            (10, [50, 50, 10, 9], 0.6),
        )
    ]
    matches = next(iter(CocoEvaluator(truth).matched(rows).classes))
    np.testing.assert_array_equal(matches.matched_object, [2, -1, 3, 1])  # annotations are sorted by image


def test_rows_tell_where_detections_came_from() -> None:
    truth, results = random_problem(4)
    evaluator = CocoEvaluator(truth)
    rows = evaluator.rows(results)
    for number, matches in enumerate(evaluator.matched(results).classes, start=1):
        np.testing.assert_array_equal(rows.scores[matches.rows], matches.scores)
        np.testing.assert_array_equal(rows.categories[matches.rows], number)


def test_an_image_keeps_its_hundred_best() -> None:
    truth = ground_truth()
    rows = [
        {"image_id": 10, "category_id": 1, "bbox": [1.0, 1.0, 5.0, 5.0], "score": n / 200} for n in range(150)
    ]
    matches = next(iter(CocoEvaluator(truth).matched(rows).classes))
    assert len(matches.scores) == 100
    assert matches.scores.min() == 50 / 200
