"""The evaluation of several tasks on one ground truth: boxes, and what else a model predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import Rows
from detector.evaluation.metrics import Metrics, MetricSpec
from detector.option_types import TaskName


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
        """Build the evaluators with `make`; the sigmas that it may have are those of keypoints."""
        if len(tasks) == 1:
            return cls((make(truth, task=tasks[0]),))
        of_others = {"sigmas": None} if "keypoints" in tasks else {}
        return cls(
            tuple(make(truth, task=task, **({} if task == "keypoints" else of_others)) for task in tasks)
        )

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
