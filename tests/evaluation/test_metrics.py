"""One list of metrics, from which all others follow."""

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import Matched
from detector.evaluation.metrics import (
    BY_CLASS,
    METRIC_NAMES,
    MONITORED,
    UNDEFINED,
    CurveMetric,
    Metric,
    Metrics,
    MetricSpec,
)
from detector.exceptions import SharedError
from detector.reports import tables
from tests.evaluation.problems import random_problem


@pytest.fixture
def numbers() -> dict[str, float]:
    return {name: 0.01 * place for place, name in enumerate(METRIC_NAMES)}


class Returning(Metric):
    """Returns the same as its values, whatever is detected, or raises it."""

    specs = (MetricSpec("size", "size", by_class=True), MetricSpec("shape", "shape"))

    def __init__(self, values: Any) -> None:
        self.values = values

    def compute(self, matched: Matched) -> Any:
        if isinstance(self.values, Exception):
            raise self.values
        return self.values


def test_more_of_the_curves_is_computed_and_shown_beside_cocos() -> None:
    """Here AR at IoU 0.9, which is not above AR over all IoUs."""
    truth, results = random_problem(0)
    metric = CurveMetric("AR90", "AR at 0.90", kind="recall", iou=0.9)
    evaluated = CocoEvaluator(truth, metrics={"ar90": metric}).evaluate(results)
    assert 0 <= evaluated.AR90 < evaluated.AR100
    assert evaluated.per_class.keys() == {"class 7", "class 2", "class 5"}
    assert all("AR90" in of_class for of_class in evaluated.per_class.values())
    assert evaluated.to_dict()["AR90"] == evaluated.AR90
    assert tables.summary_rows(evaluated)[-1] == ("AR at 0.90", f"{evaluated.AR90:.4f}", "0.90", "all", "100")


def test_a_class_of_ones_own_is_computed_by_class_where_it_says_so() -> None:
    truth, results = random_problem(0)
    evaluated = CocoEvaluator(truth, metrics={"x": Returning({"size": 2, "shape": 3.5})}).evaluate(results)
    assert (evaluated.size, evaluated.shape) == (2.0, 3.5)
    assert {tuple(of_class)[12:] for of_class in evaluated.per_class.values()} == {("size",)}
    assert tables.class_header(evaluated)[-2:] == ("AR100", "size")
    assert {row[-1] for row in tables.class_rows(evaluated, complete_in=None)[0]} == {"2.0000"}
    assert tables.summary_rows(evaluated)[-1] == ("shape", "3.5000", "", "all", "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ZeroDivisionError("no boxes"),
            r"raised ZeroDivisionError: no boxes \(.*test_metrics.py, line \d+\)",
        ),
        (0.5, r"returned 0\.5: expected a finite number for size, shape"),
        ({"size": 0.5}, "returned {'size': 0.5}: expected a finite number for size, shape"),
        ({"size": 0.5, "shape": "round"}, "returned {'size': 0.5, 'shape': 'round'}"),
        (
            {"size": float("nan"), "shape": 1.0},
            "returned {'size': nan, 'shape': 1.0}: expected a finite number",
        ),
    ],
)
def test_a_metric_that_fails_is_named_with_its_class(values: Any, message: str) -> None:
    evaluator = CocoEvaluator(random_problem(0)[0], metrics={"extent": Returning(values)})
    with pytest.raises(
        SharedError, match=rf"evaluation\.metrics\.extent: {__name__}\.Returning\.compute {message}"
    ):
        evaluator.evaluate([])


@pytest.mark.parametrize("name", ["AP50", "per_class", "loss_cls"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"evaluation\.metrics\.mine: .*CurveMetric names a metric {name}"):
        CocoEvaluator(random_problem(0)[0], metrics={"mine": CurveMetric(name, "mine")})


def test_specs_of_another_type_are_refused() -> None:
    metric = Returning({})
    metric.specs = ("size",)  # type: ignore[assignment]  # as a user may get it wrong
    with pytest.raises(ValueError, match=r"Returning\.specs has 'size', expected MetricSpec"):
        CocoEvaluator(random_problem(0)[0], metrics={"mine": metric})


def test_an_iou_between_cocos_is_refused() -> None:
    with pytest.raises(ValueError, match=r"iou=0\.62 of the metric AP62: expected one of 0\.50, 0\.55"):
        CurveMetric("AP62", "AP62", iou=0.62)


def test_the_better_value_has_the_lower_rank() -> None:
    error = dataclasses.replace(MONITORED, name="oLRP", higher_is_better=False)
    assert min([0.3, 0.5, 0.4], key=MONITORED.rank) == 0.5
    assert min([UNDEFINED, 0.3, 0.5, 0.4], key=error.rank) == 0.3


def test_ious_are_places_among_cocos() -> None:
    places = {spec.name: np.arange(10)[spec.ious].tolist() for spec in BY_CLASS}
    assert places["AP50"] == [0]
    assert places["AP75"] == [5]
    assert places["AP"] == places["AR100"] == [*range(10)]


def test_undefined_is_no_number() -> None:
    assert (MONITORED.shown(-1.0), MONITORED.shown(0.0)) == ("-", "0.0000")


def test_metrics_are_attributes_and_survive_a_copy(numbers: dict[str, float]) -> None:
    original = Metrics(numbers, {"cat": numbers}, notes=("a note",))
    assert numbers["AP75"] == original.AP75
    assert (
        original
        == pickle.loads(pickle.dumps(original))
        == copy.deepcopy(original)
        == Metrics.from_dict(original.to_dict())
    )
    with pytest.raises(AttributeError, match="AP60"):
        _ = original.AP60


def test_metrics_of_other_versions_and_runs_are_read_back(numbers: dict[str, float]) -> None:
    """A file from before a metric was added, by a run that had another one."""
    content = {**numbers, "old": -0.5, "per_class": {"cat": numbers}, "notes": ["a note"]}
    specs = Metrics(numbers, {}).specs
    evaluated = Metrics.from_dict(content, [*specs, MetricSpec("new", "new", by_class=True)])
    assert (evaluated.AP75, evaluated.old) == (numbers["AP75"], -0.5)
    assert evaluated.specs == (*specs, MetricSpec("old", "old"))
    assert evaluated.notes == ("a note", "metrics.json was written without new")
    assert tables.summary_rows(evaluated)[-1][:2] == ("old", "-0.5000")
    assert evaluated.to_dict() == {**content, "notes": [*evaluated.notes]}


def test_a_metric_by_class_may_be_absent_from_the_classes_of_a_file(numbers: dict[str, float]) -> None:
    content = {**numbers, "size": 2.0, "per_class": {"cat": numbers}, "notes": []}
    evaluated = Metrics.from_dict(content, [*Returning.specs])
    assert tables.class_header(evaluated)[-1] == "size"
    assert tables.class_rows(evaluated, complete_in=None)[0][0][-1] == "-"
