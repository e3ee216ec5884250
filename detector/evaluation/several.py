"""The evaluation of several tasks on one ground truth: boxes, and what else a model predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import Rows
from detector.evaluation.metrics import Metrics, MetricSpec
from detector.option_types import TaskName


def evaluator_of(
    make: Callable[..., CocoEvaluator],
    truth: GroundTruth | Path,
    task: TaskName,
    *,
    among: Sequence[TaskName],
) -> CocoEvaluator:
    """Build the evaluator of a task with `make`; its sigmas are for the keypoints `among` the tasks."""
    of_keypoints = task != "keypoints" and "keypoints" in among
    return make(truth, task=task, **({"sigmas": None} if of_keypoints else {}))


@dataclass(frozen=True)
class TaskEvaluators:
    """An evaluator for each task of a model, boxes first.

    The metrics of other tasks have longer names, such as segm/AP: see `task_metrics`.
    """

    evaluators: tuple[CocoEvaluator, ...]

    @classmethod
    def of(
        cls, make: Callable[..., CocoEvaluator], truth: GroundTruth, tasks: Sequence[TaskName]
    ) -> TaskEvaluators:
        return cls(tuple(evaluator_of(make, truth, task, among=tasks) for task in tasks))

    @property
    def boxes(self) -> CocoEvaluator:
        return self.evaluators[0]

    @property
    def specs(self) -> Sequence[MetricSpec]:
        """The specs of all tasks, by the names that files and logs use."""
        if len(self.evaluators) == 1:
            return self.boxes.specs
        from detector.evaluation.task_metrics import task_specs  # boxes alone do without

        return [spec for one in self.evaluators for spec in task_specs(one.specs, one.task)]

    def score(self, results: Sequence[dict[str, Any]]) -> tuple[dict[TaskName, Rows], Metrics]:
        """Return the results as the rows of each task, and the metrics of all tasks."""
        rows: dict[TaskName, Rows] = {}
        metrics: dict[TaskName, Metrics] = {}
        for one in self.evaluators:
            rows[one.task], notes = one.read(results)
            metrics[one.task] = one.score(rows[one.task], notes)
        if len(metrics) == 1:
            return rows, metrics[self.boxes.task]
        from detector.evaluation.task_metrics import merged  # boxes alone do without

        return rows, merged(metrics)
