"""The report of one model on one dataset, which training and evaluation write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import ErrorAnalysis, analyze_errors, class_curves
from detector.evaluation.matching import Matched, Rows, match
from detector.evaluation.metrics import Metrics
from detector.evaluation.several import TaskEvaluators
from detector.evaluation.statistics import Interval, ap_interval
from detector.evaluation.task_metrics import of_task
from detector.evaluation.tasks import NOUNS
from detector.files import write_json, write_text_atomically
from detector.option_types import TaskName
from detector.reports.boxes import Boxes
from detector.reports.gallery import ModelImages, ReadImage, gallery
from detector.reports.html import run_html
from detector.reports.run import Head, RunReport
from detector.reports.study import Curve, Losses, OffsetCurve
from detector.run_folder import RunFolder
from detector.runs.console import echo
from detector.runs.head import counted


@dataclass(frozen=True)
class Evaluated:
    """The detections of a model and their metrics.

    `title` names the model and its data for the terminal, `model` and `data` for the report; `facts` are what
    else it says of them. `read_image` reads an image by its id, `results` are the detections of a checkpoint
    in COCO format, to be written. `shapes` are the rows of tasks with masks or keypoints of these detections,
    and what the tasks evaluate, to be drawn.
    """

    rows: Rows
    metrics: Metrics
    title: str
    evaluator: CocoEvaluator
    model: str = "model"
    data: str = "data"
    facts: Mapping[str, str] = field(default_factory=dict)
    read_image: ReadImage | None = None
    results: Sequence[dict[str, Any]] = ()
    shapes: Sequence[tuple[Rows, GroundTruth]] = ()

    @cached_property
    def matched(self) -> Matched:
        """The detections matched with the ground truth, once for the whole report."""
        return match(self.rows, self.evaluator.truth)


def evaluated_tasks(
    evaluators: TaskEvaluators,
    results: Sequence[dict[str, Any]],
    metrics: Metrics,
    *,
    title: str,
    rows: Mapping[TaskName, Rows] | None = None,
    facts: Mapping[str, str] | None = None,
    model: str = "model",
    data: str = "data",
    read_image: ReadImage | None = None,
) -> list[Evaluated]:
    """Return what each evaluator makes of the same results, whose `metrics` of all tasks are known.

    `rows` are the results as each evaluator read them, if they are known. The fact "data" gets the counts of
    each task.
    """
    evaluated = []
    for one in evaluators.evaluators:
        own = {"data": f"{facts['data']}: {counted(one)}"} if facts and "data" in facts else {}
        evaluated.append(
            Evaluated(
                rows=one.rows(results) if rows is None else rows[one.task],
                metrics=of_task(metrics, one),
                title=title if one.task == "bbox" else f"{title}: {NOUNS[one.task]}",
                evaluator=one,
                model=model,
                data=data,
                facts={**(facts or {}), **own},
                read_image=read_image,
                results=results,
            )
        )
    return with_shapes(evaluated)


def with_shapes(evaluated: Sequence[Evaluated]) -> list[Evaluated]:
    """Let the report of each task draw the masks and keypoints of all, as they are the same detections."""
    shapes = [(one.rows, one.evaluator.truth) for one in evaluated if one.rows.shapes is not None]
    return [replace(one, shapes=shapes) for one in evaluated]


def folder_of(output_dir: Path, number: int, evaluated: Evaluated) -> RunFolder:
    """Return the folder of the report of an evaluation: that of the first task evaluated is `output_dir`."""
    files = RunFolder(output_dir)
    return files if number == 0 else files.of_task(evaluated.evaluator.task)


def remove_other_reports(output_dir: Path, tasks: Sequence[TaskName]) -> None:
    """Remove the reports that an earlier evaluation left in the folders of tasks that are none of these."""
    for task in get_args(TaskName):
        folder = RunFolder(output_dir).of_task(task)
        if task not in tasks and folder.path.is_dir():
            for file in (folder.errors, folder.interval, folder.report):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # it holds files of others
                folder.path.rmdir()


def analyzed(
    matched: Matched, *, shapes: Sequence[tuple[Rows, GroundTruth]] = ()
) -> tuple[ErrorAnalysis, ModelImages]:
    """Return the error analysis of detections, and the detections for the galleries of the report."""
    errors = analyze_errors(matched)
    return errors, ModelImages.of(matched, score=errors.best_score, tasks=shapes)


def write_run_report(
    output_dir: Path,
    evaluated: Evaluated,
    head: Head,
    *,
    notes: Sequence[str] = (),
    curve: Curve | None = None,
    losses: Losses | None = None,
    offsets: Mapping[str, OffsetCurve] | None = None,
    batches: Mapping[str, Any] | None = None,
    train_boxes: Boxes | None = None,
) -> Interval | None:
    """Write the report of one model to `output_dir` and return the interval of AP.

    `report.html` shows the images if they can be read. The error analysis is also written to `errors.json`,
    the interval to `interval.json`. `curve`, `losses`, `offsets` (by layer), `batches` and `train_boxes` come
    from the model's training.
    """
    evaluator, files = evaluated.evaluator, RunFolder(output_dir)
    echo(
        f"Analyzing {len(evaluated.rows.scores):,} detections of {len(evaluator.class_names):,} classes ...",
        error=True,
    )
    errors, model = analyzed(evaluated.matched, shapes=evaluated.shapes)
    write_json(files.errors, asdict(errors))
    echo("Resampling the images for the confidence interval of AP ...", error=True)
    interval = ap_interval(evaluated.matched)
    write_json(files.interval, {"AP": None if interval is None else asdict(interval)})
    splits = {} if train_boxes is None else {"training": train_boxes}
    report = RunReport(
        head=head,
        metrics=evaluated.metrics,
        errors=errors,
        class_curves=class_curves(evaluated.matched, errors),
        class_names=evaluator.class_names,
        num_images=evaluator.truth.num_images,
        interval=interval,
        notes=notes,
        curve=curve,
        losses=losses,
        offsets=offsets or {},
        gallery=gallery({"": model}, read=evaluated.read_image),
        batches=batches,
        task=evaluator.task,
        splits={**splits, "validation": Boxes.of_annotations(evaluator.truth.annotations)},
    )
    write_text_atomically(files.report, run_html(report))
    return interval
