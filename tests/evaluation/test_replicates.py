"""Metrics of weighted images equal pycocotools' on a ground truth with copies of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.replicates import Replicates
from tests.evaluation.problems import random_problem

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def problem(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Without ties of an image: copies of it would rank differently, as it says there."""
    truth, results = random_problem(seed)
    rng = np.random.default_rng(seed)
    scores = rng.permutation(len(results) * 3)[: len(results)]
    return truth, [{**r, "score": float(s) / 1000} for r, s in zip(results, scores, strict=True)]


def copied(
    truth: dict[str, Any], results: list[dict[str, Any]], weights: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every image as often as its weight says, under new ids in the same order."""
    new: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    new_results: list[dict[str, Any]] = []
    ids = sorted(image["id"] for image in truth["images"])
    for image_id, weight in zip(ids, weights, strict=True):
        for _ in range(weight):
            copy_id = len(new["images"])
            new["images"].append({"id": copy_id, "width": 400, "height": 400})
            for source, target in ((truth["annotations"], new["annotations"]), (results, new_results)):
                for row in source:
                    if row["image_id"] == image_id:
                        target.append({**copy.deepcopy(row), "image_id": copy_id})
    return new, new_results


def assert_equal(found: dict[str, np.ndarray], truth: Any, results: Any) -> None:
    expected = CocoEvaluator(truth).evaluate(results)
    per_class = [*expected.per_class.values()]
    assert set(NAMES) <= set(METRIC_NAMES)
    assert found.keys() == set(NAMES)
    for name in NAMES:
        wanted = [np.nan if one[name] == -1 else one[name] for one in per_class]
        np.testing.assert_allclose(found[name], wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(25))
def test_equals_pycocotools_on_copied_images(seed: int) -> None:
    truth, results = problem(seed)
    replicates = Replicates(CocoEvaluator(truth).matched(results).classes)
    rng = np.random.default_rng(seed)
    n = len(truth["images"])
    for _ in range(4):
        weights = np.bincount(rng.integers(n, size=n), minlength=n)
        assert_equal(replicates.metrics(weights), *copied(truth, results, weights))


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_one_give_the_metrics(seed: int) -> None:
    truth, results = random_problem(seed)  # ties and all
    replicates = Replicates(CocoEvaluator(truth).matched(results).classes)
    assert_equal(replicates.metrics(np.ones(len(truth["images"]), dtype=int)), truth, results)


def test_without_detections_all_is_zero() -> None:
    truth, _ = random_problem(0)
    found = Replicates(CocoEvaluator(truth).matched([]).classes).metrics(
        np.ones(len(truth["images"]), dtype=int)
    )
    assert_equal(found, truth, [])
    assert np.nansum(found["AP"]) == 0
