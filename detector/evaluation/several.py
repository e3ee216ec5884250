"""The evaluation of several tasks on one ground truth: boxes, and what else a model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import Rows
from detector.evaluation.metrics import Metrics, MetricSpec
from detector.evaluation.tasks import NOUNS
from detector.option_types import TaskName

_NOT_IN_LOG = ("AP75",)  # of other tasks than boxes: a line has no room for all


@dataclass(frozen=True)
class TaskEvaluators:
    """An evaluator for each task of a model, boxes first."""

    evaluators: tuple[CocoEvaluator, ...]

    @classmethod
    def of(
        cls, make: Callable[..., CocoEvaluator], truth: GroundTruth, tasks: Sequence[TaskName]
    ) -> TaskEvaluators:
        """Build the evaluators with `make`; the sigmas that it may have are those of keypoints."""
        of_others = {"sigmas": None} if "keypoints" in tasks else {}
        return cls(
            tuple(make(truth, task=task, **({} if task == "keypoints" else of_others)) for task in tasks)
        )

    @property
    def boxes(self) -> CocoEvaluator:
        return self.evaluators[0]

    @property
    def specs(self) -> tuple[MetricSpec, ...]:
        """The specs of all tasks, by the names that files and logs use."""
        return tuple(spec for one in self.evaluators for spec in _specs(one.specs, one.task))

    def score(self, results: Sequence[dict[str, Any]]) -> tuple[dict[TaskName, Rows], Metrics]:
        """Return the results as the rows of each task, and the metrics of all tasks."""
        rows: dict[TaskName, Rows] = {}
        metrics: dict[TaskName, Metrics] = {}
        for one in self.evaluators:
            rows[one.task], notes = one.read(results)
            metrics[one.task] = one.score(rows[one.task], notes)
        return rows, merged(metrics)

    def of_task(self, metrics: Metrics, evaluator: CocoEvaluator) -> Metrics:
        """Return the part of `merged` metrics that an evaluator computed."""
        start, noun = metric_name(evaluator.task, ""), f"{NOUNS[evaluator.task]}: "
        others = tuple(metric_name(one.task, "") for one in self.evaluators if one.task != "bbox")
        foreign = tuple(f"{NOUNS[one.task]}: " for one in self.evaluators if one.task != "bbox")

        def own(values: Mapping[str, float]) -> dict[str, float]:
            if start:
                return {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}
            return {name: value for name, value in values.items() if not name.startswith(others)}

        per_class = {name: own(values) for name, values in metrics.per_class.items()}
        notes = (
            [n.removeprefix(noun) for n in metrics.notes if n.startswith(noun)]
            if start
            else [note for note in metrics.notes if not note.startswith(foreign)]
        )
        values, known = own(metrics.values), {spec.name: spec for spec in evaluator.specs}
        return Metrics(
            values,
            {name: of_class for name, of_class in per_class.items() if of_class},
            (*notes,),
            tuple(known.get(name, MetricSpec(name, name)) for name in values),
        )


def metric_name(task: TaskName, name: str) -> str:
    """Return what files and logs call a metric of a task: AP for boxes, segm/AP for masks."""
    return name if task == "bbox" else f"{task}/{name}"


def merged(by_task: Mapping[TaskName, Metrics]) -> Metrics:
    """Return the metrics of several tasks as one: those of boxes keep their names."""
    values: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {}
    notes: dict[str, None] = {}
    for task, metrics in by_task.items():
        values |= {metric_name(task, name): value for name, value in metrics.values.items()}
        for class_name, of_class in metrics.per_class.items():
            of_all = per_class.setdefault(class_name, {})
            of_all |= {metric_name(task, name): value for name, value in of_class.items()}
        prefix = "" if task == "bbox" else f"{NOUNS[task]}: "
        notes |= dict.fromkeys(f"{prefix}{note}" for note in metrics.notes if note not in notes)
    specs = (spec for task, metrics in by_task.items() for spec in _specs(metrics.specs, task))
    return Metrics(values, per_class, (*notes,), (*specs,))


def _specs(specs: Sequence[MetricSpec], task: TaskName) -> list[MetricSpec]:
    if task == "bbox":
        return [*specs]
    return [
        replace(
            spec,
            name=metric_name(task, spec.name),
            label=f"{task} {spec.label}",
            in_log=spec.in_log and spec.name not in _NOT_IN_LOG,
        )
        for spec in specs
    ]
