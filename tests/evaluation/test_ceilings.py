"""The ceiling that is told is what perfect results get."""

from __future__ import annotations

import re
from typing import Any

import pytest

from detector.evaluation.coco import CocoEvaluator
from tests.evaluation.problems import annotation, ground_truth, perfect_results


def dense(*counts: tuple[int, int, int], crowds: int = 0) -> dict:
    """So many objects of an image and category, apart from each other."""
    annotations: list[dict[str, Any]] = []
    for image, category, count in counts:
        for place in range(count):
            box = [float(3 * (place % 30)), float(3 * (place // 30)), 2.0, 2.0]
            annotations.append(annotation(len(annotations) + 1, image, category, box))
    annotations += [annotation(1000 + n, 20, 3, [1.0, 1.0, 2.0, 2.0], iscrowd=1) for n in range(crowds)]
    return ground_truth(annotations=annotations)


@pytest.mark.parametrize(
    ("counts", "images", "classes"),
    [
        ([(10, 1, 150)], 1, "1 of 1"),
        ([(10, 1, 150), (20, 1, 120), (20, 3, 5)], 2, "1 of 2"),
        ([(10, 1, 101), (10, 3, 300), (20, 1, 7)], 1, "2 of 2"),
    ],
)
def test_the_ceiling_is_that_of_perfect_results(
    counts: list[tuple[int, int, int]], images: int, classes: str
) -> None:
    truth = dense(*counts)
    metrics = CocoEvaluator(truth).evaluate(perfect_results(truth))
    (note,) = metrics.notes
    assert note.startswith(f"{images} of 2 images hold more than 100 objects of a class")
    assert f"AP {metrics.AP:.3f} and AR100 {metrics.AR100:.3f} ({classes} classes are capped)" in note
    assert metrics.AP < 1


def test_the_most_crowded_image_is_described() -> None:
    (note,) = CocoEvaluator(dense((10, 1, 150), (20, 3, 110))).evaluate([]).notes
    assert re.search(r'up to 150 of "cat": COCO counts 100 detections', note)


@pytest.mark.parametrize(
    "truth", [dense((10, 1, 100), (10, 3, 100), (20, 1, 100)), dense((20, 3, 60), crowds=60)]
)
def test_a_hundred_are_no_more_than_a_hundred(truth: dict) -> None:
    assert CocoEvaluator(truth).evaluate([]).notes == ()
