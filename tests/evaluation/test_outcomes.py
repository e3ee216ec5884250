"""What becomes of each detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import KINDS, _tide
from detector.evaluation.outcomes import NOT_COUNTED, OUTCOMES, RIGHT, Objects, Outcomes, outcomes
from tests.evaluation.problems import annotation, crowded_problem, ground_truth, random_problem
from tests.evaluation.worlds import run_of, world


def disturbed(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every kind of error: other classes, shifted boxes, duplicates."""
    random = np.random.default_rng(seed)
    truth = world(30, random)
    results = run_of(truth, random, skill=0.6)
    for one in results:
        if random.random() < 0.3:
            one["category_id"] = int(random.integers(1, 3))
        if random.random() < 0.3:
            one["bbox"][0] += one["bbox"][2] * random.random()
    again = [{**one, "score": 0.9 * one["score"]} for one in results if random.random() < 0.3]
    return truth, results + again


@pytest.mark.parametrize("make", [disturbed, random_problem, crowded_problem])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("score", [0.0, 0.5])
def test_kinds_are_counted_as_by_tide(make: Any, seed: int, score: float) -> None:
    """One set of outcomes serves every threshold: TIDE is run anew on the detections from the score on."""
    truth, results = make(seed)
    matched = CocoEvaluator(truth).matched(results)
    of = outcomes(matched)
    kept = of.rows.scores >= score
    tide = _tide(matched.rows.selected(matched.rows.scores >= score), matched.truth)["counts"]
    counts = {name: int((of.kinds[kept] == place).sum()) for place, name in enumerate(OUTCOMES)}
    assert {name: counts[name] for name in OUTCOMES[1:]} == {name: tide[KINDS[name]] for name in OUTCOMES[1:]}


@pytest.mark.parametrize("seed", range(3))
def test_right_detections_are_those_that_ap_counts(seed: int) -> None:
    truth, results = random_problem(seed)
    matched = CocoEvaluator(truth).matched(results)
    right = sum(int((c.matched[0, 0] & ~c.ignored[0, 0]).sum()) for c in matched.classes)
    assert int((outcomes(matched).kinds == RIGHT).sum()) == right


def only(results: list[dict[str, Any]]) -> tuple[Outcomes, Objects]:
    truth = ground_truth()
    truth["annotations"].append(annotation(4, 20, 3, [60.0, 0.0, 30.0, 30.0], iscrowd=1))
    matched = CocoEvaluator(truth).matched(results)
    return outcomes(matched), Objects.of(matched)


def test_an_error_names_its_object() -> None:
    of, objects = only([{"image_id": 10, "category_id": 3, "bbox": [5.0, 5.0, 20.0, 20.0], "score": 0.8}])
    assert OUTCOMES[of.kinds[0]] == "classification"
    assert of.objects.tolist() == [0]
    assert of.overlaps.tolist() == [1.0]
    assert objects.classes.tolist() == [0, 1, 0, 1]


def test_what_lies_in_a_crowd_does_not_count() -> None:
    of, _ = only([{"image_id": 20, "category_id": 3, "bbox": [62.0, 2.0, 10.0, 10.0], "score": 0.8}])
    assert of.kinds.tolist() == [NOT_COUNTED]
