"""Errors that were made on purpose are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.evaluation.backends import curves
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import ErrorAnalysis, analyze_errors, image_f1
from detector.evaluation.f1 import best_f1_threshold
from tests.evaluation.problems import (
    annotation,
    by_pycocotools,
    crowded_problem,
    ground_truth,
    perfect_results,
    random_problem,
)

BOX = [10.0, 10.0, 40.0, 40.0]
SHIFTED = [10.0, 30.0, 40.0, 40.0]  # IoU 1/3 with BOX
FAR = [60.0, 55.0, 20.0, 20.0]


def analyzed(truth: dict[str, Any], results: list[dict[str, Any]]) -> ErrorAnalysis:
    evaluator = CocoEvaluator(truth)
    return analyze_errors(evaluator.matched(results))


def detection(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def one_object() -> dict[str, Any]:
    """A cat in image 10, and a dog elsewhere, which is found."""
    return ground_truth(annotations=[annotation(1, 10, 1, BOX), annotation(2, 20, 3, BOX)])


DOG = detection(20, 3, BOX, 0.9)


@pytest.mark.parametrize(
    ("kind", "results"),
    [
        ("classification", [detection(10, 3, BOX, 0.8)]),
        ("localisation", [detection(10, 1, SHIFTED, 0.8)]),
        ("both", [detection(10, 3, SHIFTED, 0.8)]),
        ("duplicate", [detection(10, 1, BOX, 0.8), detection(10, 1, BOX, 0.7)]),
        ("background", [detection(10, 1, FAR, 0.95), detection(10, 1, BOX, 0.8)]),
    ],
)
def test_each_kind_is_told_from_the_others(kind: str, results: list[dict[str, Any]]) -> None:
    errors = analyzed(one_object(), [DOG, *results])
    assert {name for name, count in errors.counts.items() if count and name != "missed"} == {kind}
    assert errors.counts["missed"] == (kind == "both")  # as in TIDE: mending it would need two things
    if kind in ("classification", "localisation"):
        assert errors.lost[kind] == pytest.approx(0.5)  # one of two classes has no AP


def test_what_is_missed_costs_recall() -> None:
    truth = ground_truth(annotations=[annotation(1, 10, 1, BOX), annotation(2, 20, 1, BOX)])
    errors = analyzed(truth, [detection(10, 1, BOX, 0.9)])
    assert errors.counts == {**dict.fromkeys(errors.counts, 0), "missed": 1}
    assert errors.lost["missed"] == pytest.approx(1 - 51 / 101)


def test_perfect_detections_have_no_error() -> None:
    truth = ground_truth()
    errors = analyzed(truth, perfect_results(truth))
    assert set(errors.lost.values()) == {0.0}
    assert errors.best_f1 == 1
    assert errors.lrp.total == pytest.approx(0, abs=1e-12)
    assert errors.precision["0.50:0.95"] == (1.0,) * 101


def test_threshold_of_the_best_f1_is_that_of_the_report() -> None:
    evaluator = CocoEvaluator(one_object())
    matched = evaluator.matched([DOG, detection(10, 1, BOX, 0.5), detection(10, 1, FAR, 0.2)])
    assert best_f1_threshold(matched) == analyze_errors(matched).best_score == pytest.approx(0.21)
    assert best_f1_threshold(evaluator.matched([detection(10, 1, FAR, 0.2)])) is None
    too_high = [{**DOG, "score": 5.0}, detection(10, 1, BOX, 4.0), detection(10, 1, FAR, 3.0)]
    assert best_f1_threshold(evaluator.matched(too_high)) is None


def test_f1_counts_detections_from_a_score_on() -> None:
    errors = analyzed(one_object(), [DOG, detection(10, 1, BOX, 0.5), detection(10, 1, FAR, 0.2)])
    assert errors.f1[95] == 0
    assert errors.f1[60] == pytest.approx(0.5)  # the dog alone
    assert errors.f1[30] == pytest.approx(1.0)
    assert errors.f1[10] == pytest.approx((1 + 2 / 3) / 2)
    assert errors.best_score == pytest.approx(0.21)


def test_lrp_of_a_hand_made_case() -> None:
    near = [10.0, 10.0, 40.0, 32.0]  # IoU 0.8
    truth = ground_truth(annotations=[annotation(1, 10, 1, BOX), annotation(2, 20, 1, BOX)])
    lrp = analyzed(truth, [detection(10, 1, near, 0.9), detection(10, 1, FAR, 0.8)]).lrp
    # From 0.9 on: one found at 0.2 / 0.5, none false, one missed.
    assert lrp.total == pytest.approx((0.4 + 0 + 1) / 2)
    assert (lrp.localisation, lrp.false_positives, lrp.missed) == pytest.approx((0.2, 0.0, 0.5))


def test_confusions_count_objects_by_what_they_were_taken_for() -> None:
    errors = analyzed(one_object(), [DOG, detection(10, 3, BOX, 0.9)])
    assert errors.confusion == ((0, 1, 1), (1, 1, 1))


@pytest.mark.parametrize("make", [random_problem, crowded_problem])
@pytest.mark.parametrize("seed", range(15))
def test_confusions_are_those_of_ap(seed: int, make: Any) -> None:
    """The diagonal is what pycocotools counts as right at that score, and no object or detection is lost."""
    truth, results = make(seed)
    errors = analyzed(truth, results)
    table = np.zeros((4, 4), dtype=int)
    for row, column, count in errors.confusion:
        table[row, column] = count
    kept = [r for r in results if r["score"] >= errors.best_score]
    run = by_pycocotools(truth, kept)
    right, wrong, objects = np.zeros(3, dtype=int), np.zeros(3, dtype=int), np.zeros(3, dtype=int)
    for entry in run.evalImgs:
        if entry and entry["aRng"] == run.params.areaRng[0]:
            number = run.params.catIds.index(entry["category_id"])
            counted = entry["dtIgnore"][0] == 0
            right[number] += np.count_nonzero(counted & (entry["dtMatches"][0] > 0))
            wrong[number] += np.count_nonzero(counted & (entry["dtMatches"][0] == 0))
            objects[number] += np.count_nonzero(entry["gtIgnore"] == 0)
    np.testing.assert_array_equal(np.diag(table)[:3], right)
    np.testing.assert_array_equal(table[:, :3].sum(axis=0), right + wrong)
    np.testing.assert_array_equal(table[:3].sum(axis=1), objects)
    assert sum(errors.counts_at_best.values()) - errors.counts_at_best["missed"] == wrong.sum()


def test_a_surer_detection_of_another_class_takes_no_object_from_its_own() -> None:
    errors = analyzed(one_object(), [DOG, detection(10, 3, BOX, 0.95), detection(10, 1, BOX, 0.9)])
    assert errors.confusion == ((0, 0, 1), (1, 1, 1), (2, 1, 1))


def test_an_object_is_taken_for_one_class_once() -> None:
    errors = analyzed(one_object(), [DOG, detection(10, 3, BOX, 0.9), detection(10, 3, BOX, 0.9)])
    assert errors.confusion == ((0, 1, 1), (1, 1, 1), (2, 1, 1))


def test_errors_are_counted_at_the_best_score_too() -> None:
    errors = analyzed(one_object(), [DOG, detection(10, 1, BOX, 0.8), detection(10, 1, FAR, 0.1)])
    assert (errors.counts["background"], errors.counts_at_best["background"]) == (1, 0)


def test_what_lies_in_a_crowd_is_no_confusion() -> None:
    truth = one_object()
    truth["annotations"].append(annotation(3, 10, 1, [50.0, 40.0, 40.0, 30.0], iscrowd=1))
    errors = analyzed(truth, [DOG, detection(10, 1, BOX, 0.9), *[detection(10, 1, FAR, 0.9)] * 2])
    assert errors.confusion == ((0, 0, 1), (1, 1, 1))


def test_scores_may_be_any_number() -> None:
    truth = ground_truth()
    for scale in (-1.0, 100.0):
        errors = analyzed(truth, [{**r, "score": r["score"] * scale} for r in perfect_results(truth)])
        assert errors.best_f1 == 1
        assert errors.confusion


@pytest.mark.parametrize("seed", range(10))
def test_precision_averages_to_the_metrics(seed: int) -> None:
    truth, results = random_problem(seed)
    metrics, errors = CocoEvaluator(truth).evaluate(results), analyzed(truth, results)
    for name, value in (("0.50", metrics.AP50), ("0.75", metrics.AP75), ("0.50:0.95", metrics.AP)):
        assert np.mean(errors.precision[name]) == pytest.approx(value)


@pytest.mark.parametrize("make", [random_problem, crowded_problem])
@pytest.mark.parametrize("seed", range(10))
def test_precision_is_that_of_pycocotools_to_the_last_digit(seed: int, make: Any) -> None:
    truth, results = make(seed)
    matched = CocoEvaluator(truth).matched(results)
    precision, _ = curves("pycocotools", matched.rows, matched.truth)
    of_all = precision[:, :, :, 0, 2]
    defined = of_all[:, :, (of_all > -1).all(axis=(0, 1))]
    expected = {"0.50": defined[:1], "0.75": defined[5:6], "0.50:0.95": defined}
    precisions = analyze_errors(matched).precision
    assert precisions == {iou: tuple(one.mean(axis=(0, 2)).tolist()) for iou, one in expected.items()}


def test_images_have_an_f1_of_their_own() -> None:
    evaluator = CocoEvaluator(ground_truth())
    results = [detection(10, 1, [5.0, 5.0, 20.0, 20.0], 0.9), detection(20, 1, FAR, 0.3)]
    matched = evaluator.matched(results)
    np.testing.assert_allclose(image_f1(matched, score=0.5), [2 / 3, 0.0])
    np.testing.assert_allclose(image_f1(matched, score=0.95), [0.0, 0.0])


def test_false_alarms_in_an_empty_image_are_worse_than_none() -> None:
    evaluator = CocoEvaluator(ground_truth(annotations=[annotation(1, 10, 1, BOX)]))
    matched = evaluator.matched([detection(20, 1, FAR, 0.5)])
    np.testing.assert_allclose(image_f1(matched, score=0.9), [0.0, 1.0])
    np.testing.assert_allclose(image_f1(matched, score=0.5), [0.0, 0.0])


def test_nothing_to_find_and_nothing_found_is_no_failure() -> None:
    truth = ground_truth()
    assert analyzed(truth, []).lrp.total == 1
    empty = analyzed({**truth, "annotations": []}, perfect_results(truth))
    assert empty.best_f1 == 0
    assert empty.lrp.total is None
