"""The metrics of several tasks have names of their own, and can be told apart again."""

from __future__ import annotations

from functools import partial

import pytest

from detector.coco.truth_reader import read_ground_truth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import CurveMetric, Metrics
from detector.evaluation.several import TaskEvaluators
from detector.evaluation.task_metrics import of_task
from detector.option_types import TaskName
from tests.evaluation.shapes import random_masks

TASKS: tuple[TaskName, ...] = ("bbox", "segm")


@pytest.fixture(scope="module")
def scored() -> tuple[TaskEvaluators, Metrics, list[Metrics]]:
    """The evaluators, the metrics of both tasks as one, and those of each task alone."""
    truth, results = random_masks(1)
    results += [
        {**one, "score": 0.9} for one in truth["annotations"] if isinstance(one["segmentation"], list)
    ]
    results = [{**one, "bbox": [10, 10, 30, 30]} for one in results]
    make = partial(CocoEvaluator, metrics={"AP90": CurveMetric("AP90", "AP90", iou=0.9)})
    evaluators = TaskEvaluators.of(make, read_ground_truth(truth, tasks=TASKS), TASKS)
    alone = [make(truth, task=task).evaluate(results) for task in TASKS]
    return evaluators, evaluators.score(results)[1], alone


def test_boxes_keep_the_names_of_their_metrics(
    scored: tuple[TaskEvaluators, Metrics, list[Metrics]],
) -> None:
    _, metrics, (boxes, masks) = scored
    assert {name: value for name, value in metrics.values.items() if "/" not in name} == boxes.values
    assert metrics.values["segm/AP"] == masks.values["AP"] != boxes.values["AP"]
    assert metrics.values["segm/AP90"] == masks.values["AP90"]
    assert [spec.name for spec in metrics.specs] == [*metrics.values]
    assert [spec.name for spec in metrics.specs if spec.in_log] == [
        "AP", "AP50", "AP75", "segm/AP", "segm/AP50"
    ]  # fmt: skip


def test_the_metrics_of_each_task_are_found_again_in_a_file(
    scored: tuple[TaskEvaluators, Metrics, list[Metrics]],
) -> None:
    evaluators, metrics, alone = scored
    read = Metrics.from_dict(metrics.to_dict(), evaluators.specs)
    for evaluator, expected in zip(evaluators.evaluators, alone, strict=True):
        own = of_task(read, evaluator)
        assert own.to_dict() == expected.to_dict()
        assert [*own.specs] == [*expected.specs]


def test_notes_name_their_task() -> None:
    truth, _ = random_masks(1)
    boxes, masks = (CocoEvaluator(truth, task=task) for task in TASKS)
    masks.notes, boxes.notes = ("few", "both"), ("both",)
    evaluators = TaskEvaluators((boxes, masks))
    _, metrics = evaluators.score([])
    assert metrics.notes == ("both", "masks: few")
    assert of_task(metrics, boxes).notes == ("both",)
    assert of_task(metrics, masks).notes == ("few",)
