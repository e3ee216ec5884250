"""One list of metrics, from which all others follow."""

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from detector.evaluation import coco, metrics
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import BY_CLASS, COCO_METRICS, METRIC_NAMES, MONITORED, Metrics, MetricSpec
from detector.reports import tables
from tests.evaluation.problems import random_problem


@pytest.fixture
def numbers() -> dict[str, float]:
    return {name: 0.01 * place for place, name in enumerate(METRIC_NAMES)}


def test_a_new_metric_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is computed, kept and shown: here AR at IoU 0.9, which is not above AR over all IoUs."""
    specs = (*COCO_METRICS, MetricSpec("AR90", "AR at 0.90", "recall", iou=0.9))
    for module in (coco, metrics, tables):
        monkeypatch.setattr(module, "COCO_METRICS", specs)
    monkeypatch.setattr(metrics, "METRIC_NAMES", tuple(spec.name for spec in specs))
    truth, results = random_problem(0)
    found = CocoEvaluator(truth).evaluate(results)
    assert 0 <= found.AR90 < found.AR100
    assert found.per_class.keys() == {"class 7", "class 2", "class 5"}
    assert all("AR90" in of_class for of_class in found.per_class.values())
    assert found.to_dict()["AR90"] == found.AR90
    assert tables.summary_rows(found)[-1] == ("AR at 0.90", f"{found.AR90:.4f}", "0.90", "all", "100")


def test_the_better_value_has_the_lower_rank() -> None:
    error = dataclasses.replace(MONITORED, name="oLRP", higher_is_better=False)
    assert min([0.3, 0.5, 0.4], key=MONITORED.rank) == 0.5
    assert min([0.3, 0.5, 0.4], key=error.rank) == 0.3


def test_ious_are_places_among_cocos() -> None:
    places = {spec.name: np.arange(10)[spec.ious].tolist() for spec in BY_CLASS}
    assert places["AP50"] == [0]
    assert places["AP75"] == [5]
    assert places["AP"] == places["AR100"] == [*range(10)]


def test_undefined_is_no_number() -> None:
    assert (MONITORED.shown(-1.0), MONITORED.shown(0.0)) == ("-", "0.0000")


def test_metrics_are_attributes_and_survive_a_copy(numbers: dict[str, float]) -> None:
    made = Metrics(**numbers, per_class={"cat": numbers}, notes=["a note"])
    assert numbers["AP75"] == made.AP75
    assert made == pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == Metrics(**made.to_dict())
    with pytest.raises(AttributeError, match="AP60"):
        _ = made.AP60


def test_a_metric_that_is_missing_or_unknown_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="AR100"):
        Metrics(AP=0.5, per_class={})
    with pytest.raises(TypeError, match="AP60"):
        Metrics(**numbers, AP60=0.5, per_class={})
