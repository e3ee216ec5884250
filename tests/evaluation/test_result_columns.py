"""Results as columns are the same results, and none that are malformed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import Rows
from detector.evaluation.result_columns import result_columns
from tests.evaluation.worlds import run_of, world


@pytest.mark.parametrize("change", [{}, {"file_name": "another.jpg"}, {"bbox": (1, 2, 3, 4)}, {"score": 1}])
def test_rows_of_columns_are_those_of_the_results(change: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    truth = world(20, random)
    results = [{**row, **change} for row in run_of(truth, random)]
    evaluator = CocoEvaluator(truth)
    rows, expected = evaluator.rows(results), Rows.of(results, evaluator.truth)
    assert len(rows.scores) == len(results) > 20
    for name in ("images", "categories", "boxes_xywh", "scores"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": True},
        {"image_id": 1.0},
        {"category_id": None},
        {"bbox": [1, 2, 3]},
        {"bbox": "1234"},
        {"bbox": None},
        {"bbox": [1, 2, 3, "4"]},
        {"bbox": [1, 2, 3, True]},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": [1, 2, 10**400, 4]},
        {"score": float("nan")},
        {"score": "0.5"},
        {"score": False},
    ],
)
def test_what_is_not_as_it_should_be_has_no_columns(change: dict[str, Any]) -> None:
    right = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    assert result_columns([right, right]) is not None
    assert result_columns([right, {**right, **change}]) is None
    assert result_columns([right, {k: v for k, v in right.items() if k not in change}]) is None
    assert result_columns([right, 3]) is None
