"""The metrics of several tasks as one: those of boxes keep their names, others are as segm/AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import Metrics, MetricSpec
from detector.evaluation.tasks import KEYS, NOUNS
from detector.option_types import TaskName

_OTHERS = tuple(task for task in NOUNS if task != "bbox")
_PREFIXES = {task: "" if task == "bbox" else f"{noun}: " for task, noun in NOUNS.items()}  # of notes
_NOT_IN_LOG = ("AP75",)  # of other tasks than boxes: a line has no room for all


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
        notes |= dict.fromkeys(f"{_PREFIXES[task]}{note}" for note in metrics.notes if note not in notes)
    specs = (spec for task, metrics in by_task.items() for spec in task_specs(metrics.specs, task))
    return Metrics(values, per_class, (*notes,), (*specs,))


def task_specs(specs: Sequence[MetricSpec], task: TaskName) -> list[MetricSpec]:
    """Return the specs of a task by the names that files and logs use."""
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


def of_task(metrics: Metrics, evaluator: CocoEvaluator) -> Metrics:
    """Return the part of `merged` metrics that an evaluator computed."""
    task = evaluator.task

    def own(values: Mapping[str, float]) -> dict[str, float]:
        named = {name: task_and_name(name) for name in values}
        return {short: values[name] for name, (of, short) in named.items() if of == task}

    values, known = own(metrics.values), {spec.name: spec for spec in evaluator.specs}
    per_class = {name: own(of_class) for name, of_class in metrics.per_class.items()}
    return Metrics(
        values,
        {name: of_class for name, of_class in per_class.items() if of_class},
        tuple(note.removeprefix(_PREFIXES[task]) for note in metrics.notes if _task_of(note) == task),
        tuple(known.get(name, MetricSpec(name, name)) for name in values),
    )


def deciding_spec(evaluator: CocoEvaluator, metric: str) -> MetricSpec:
    """Return the spec, by the name that its own task gives it, of the metric that decides a comparison.

    Raises:
        ValueError: the evaluator has none of this name that differs by class.
    """
    known = {metric_name(evaluator.task, spec.name): spec for spec in evaluator.specs if spec.by_class}
    if metric not in known:
        raise ValueError(f"compare.metric={metric}: expected one of {', '.join(known)}.")
    return known[metric]


def held_tasks(results: Sequence[Any]) -> list[TaskName]:
    """Return the tasks of which any result has something; boxes if none has."""
    objects = [result for result in results if isinstance(result, dict)]
    return [task for task, key in KEYS.items() if any(result.get(key) for result in objects)] or ["bbox"]


def task_and_name(name: str) -> tuple[TaskName, str]:
    """Return the task of a metric, and what the task calls it."""
    for task in _OTHERS:
        if name.startswith(f"{task}/"):
            return task, name.removeprefix(f"{task}/")
    return "bbox", name


def _task_of(note: str) -> TaskName:
    return next((task for task in _OTHERS if note.startswith(_PREFIXES[task])), "bbox")
