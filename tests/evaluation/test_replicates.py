"""Metrics of weighted images equal pycocotools' on a ground truth with copies of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import METRIC_NAMES, CurveMetric, Metric
from detector.evaluation.replicates import Replicates, replicates_of, resampled
from tests.evaluation.problems import random_problem
from tests.extensions.metric import Missed

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


def assert_equal(actual: dict[str, np.ndarray], truth: Any, results: Any) -> None:
    expected = CocoEvaluator(truth).evaluate(results)
    per_class = [*expected.per_class.values()]
    assert set(NAMES) <= set(METRIC_NAMES)
    assert actual.keys() == set(NAMES)
    for name in NAMES:
        means = [np.nan if one[name] == -1 else one[name] for one in per_class]
        np.testing.assert_allclose(actual[name], means, rtol=1e-12, atol=0)


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
    actual = Replicates(CocoEvaluator(truth).matched([]).classes).metrics(
        np.ones(len(truth["images"]), dtype=int)
    )
    assert_equal(actual, truth, [])
    assert np.nansum(actual["AP"]) == 0


@pytest.mark.parametrize("seed", range(3))
def test_matches_drawn_again_are_those_of_copied_images(seed: int) -> None:
    """A metric of a user's own then sees the same draw as those of the curves."""
    truth, results = problem(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(truth["images"]))
    drawn = resampled(CocoEvaluator(truth).matched(results), weights.astype(np.float64))
    expected = CocoEvaluator(copied(truth, results, weights)[0]).matched(copied(truth, results, weights)[1])
    for actual, expected_class in zip(drawn.classes, expected.classes, strict=True):
        for name in ("images", "scores", "matched", "ignored", "objects", "overlaps"):
            np.testing.assert_array_equal(getattr(actual, name), getattr(expected_class, name))


def test_metrics_by_class_of_ones_own_are_drawn_too() -> None:
    """Recall by hand is that of the curves; a limit that is not drawn has no replicates."""
    truth, results = problem(0)
    metrics: dict[str, Metric | CurveMetric] = {
        "ar60": CurveMetric("AR60", "AR60", kind="recall", iou=0.6, by_class=True),
        "ar10": CurveMetric("Ten", "AR of 10", kind="recall", limit=10, by_class=True),
        "missed": Missed(0.6),
    }
    evaluator = CocoEvaluator(truth, metrics=metrics)
    weights = np.random.default_rng(0).integers(0, 4, len(truth["images"]))
    actual = replicates_of(evaluator.matched(results), evaluator).metrics(weights)
    assert actual.keys() == {*NAMES, "AR60", "Missed60"}
    new_truth, new_results = copied(truth, results, weights)
    expected = CocoEvaluator(new_truth, metrics=metrics).evaluate(new_results)
    assert actual["Missed60"].tolist() == [expected.Missed60]
    assert np.nanmean(actual["AR60"]) == pytest.approx(expected.AR60)
    no_objects = np.zeros(len(weights), dtype=int)
    assert np.isnan(
        replicates_of(evaluator.matched(results), evaluator).metrics(no_objects)["Missed60"]
    ).all()
