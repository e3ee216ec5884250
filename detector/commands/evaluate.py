"""`detector evaluate`: COCO metrics of a results file, or of a checkpoint on its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.result_boxes import check_boxes
from detector.evaluation.result_files import read_results
from detector.evaluation.results import write_predictions
from detector.evaluation.several import evaluator_of
from detector.evaluation.task_metrics import held_tasks, merged
from detector.evaluation.tasks import NOUNS
from detector.files import write_json
from detector.option_types import NonNegativeInt, PositiveInt, TaskName
from detector.quoting import advised
from detector.reports.tables import print_coco_metrics
from detector.run_folder import RunFolder
from detector.runs.console import echo
from detector.runs.context import Context
from detector.runs.head import counted, evaluation_head
from detector.runs.record import require_no_training_run, require_writable, write_record
from detector.runs.report import (
    Evaluated,
    folder_of,
    remove_other_reports,
    with_shapes,
    write_run_report,
)


@dataclass(frozen=True)
class Split:
    """The annotation file and image folder of a split."""

    annotations: str | None = None
    images: str | None = None


@dataclass(frozen=True)
class DataOverrides:
    """Options that replace those of the data in training; None keeps the value."""

    root: str | None = None
    val: Split = field(default_factory=Split)
    val_batch_size: PositiveInt | None = None
    num_workers: NonNegativeInt | None = None
    worker_timeout_s: PositiveInt | None = None
    on_bad_box: Literal["error", "drop"] | None = None
    on_bad_image: Literal["error", "skip"] | None = None
    check_images: Literal["headers", "decode"] | None = None
    image_range: Literal["auto", "full"] | tuple[float, float] | None = None
    max_image_pixels: PositiveInt | None = None
    file_names: Literal["paths", "base"] | None = None


@dataclass(frozen=True)
class Options:
    """The keys of configs/evaluate.yaml."""

    output_dir: str
    evaluation: Callable[..., CocoEvaluator]
    name: str = "coco"
    checkpoint: str | None = None
    predictions: str | None = None
    annotations: str | None = None
    tasks: tuple[TaskName, ...] | None = None
    data: DataOverrides = field(default_factory=DataOverrides)
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"


def run(options: Options, context: Context) -> None:
    """Evaluate, print the tables, and write metrics.json and the record of the run to `output_dir`.

    For a checkpoint, predictions.json is written too.

    Raises:
        ValueError: it is unclear what to evaluate, or a file cannot be evaluated.
    """
    overrides = without_unset(context.config["data"])
    _require_one_subject(options, overrides)
    output_dir = Path(options.output_dir)
    files = RunFolder(output_dir)
    require_no_training_run(output_dir)
    require_writable(output_dir)
    if options.checkpoint is None:
        assert options.predictions is not None
        assert options.annotations is not None
        evaluated = _evaluate_file(
            Path(options.predictions), Path(options.annotations), options.tasks, options.evaluation
        )
    else:
        from detector.runs.inference import evaluate_checkpoint  # heavy, and not needed for a file

        evaluated = evaluate_checkpoint(
            options.checkpoint,
            data_overrides=overrides,
            evaluator=options.evaluation,
            accelerator=options.accelerator,
            generate_into=output_dir / "data",
        )
        write_predictions(files.predictions, evaluated[0].results)
    write_record(output_dir, context)
    write_json(files.metrics, merged({one.evaluator.task: one.metrics for one in evaluated}).to_dict())
    remove_other_reports(output_dir, [one.evaluator.task for one in evaluated[1:]])
    for number, one in enumerate(evaluated):
        folder = folder_of(output_dir, number, one)
        head = evaluation_head(output_dir, model=one.model, data=one.data, facts=one.facts)
        interval = write_run_report(folder.path, one, head)
        print_coco_metrics(one.metrics, title=one.title, interval=interval, complete_in=str(files.metrics))
        print(f"Written to {folder.path}: open {folder.report}")


def _require_one_subject(options: Options, data: Mapping[str, Any]) -> None:
    checkpoint, predictions, annotations = options.checkpoint, options.predictions, options.annotations
    if checkpoint is None and predictions is None:
        raise ValueError(
            "Nothing to evaluate. Give checkpoint=<run>/checkpoints/best.ckpt, or "
            "predictions=<results>.json annotations=<ground truth>.json."
        )
    if checkpoint is not None and predictions is not None:
        raise ValueError(
            f"Both checkpoint={checkpoint} and predictions={predictions} are given. Give one: a checkpoint "
            "predicts first, predictions are evaluated as they are."
        )
    if predictions is not None and annotations is None:
        raise ValueError(f"predictions={predictions} needs its ground truth: annotations=<COCO file>.json.")
    if checkpoint is not None and annotations is not None:
        raise ValueError(
            f"annotations={annotations} is the ground truth of predictions=. The data of a checkpoint is "
            f"set by {advised('data.val.annotations', annotations)} (and data.val.images=...)."
        )
    if checkpoint is not None and options.tasks is not None:
        raise ValueError(
            "tasks is for predictions=: a checkpoint is evaluated by all that its model predicts. Leave out "
            "tasks."
        )
    if options.tasks is not None and (not options.tasks or len({*options.tasks}) < len(options.tasks)):
        raise ValueError(
            "tasks names no task or one twice. Give some of bbox, segm and keypoints, each once."
        )
    if predictions is not None and data:
        raise ValueError(
            f"data is for checkpoint=: predictions= reads no images. Leave out data.{', data.'.join(data)}."
        )


def without_unset(options: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that are not None, in nested mappings too."""
    values = {
        key: without_unset(value) if isinstance(value, dict) else value for key, value in options.items()
    }
    return {key: value for key, value in values.items() if value is not None and value != {}}


def _evaluate_file(
    predictions: Path,
    annotations: Path,
    tasks: Sequence[TaskName] | None,
    make_evaluator: Callable[..., CocoEvaluator],
) -> list[Evaluated]:
    """Evaluate a results file by `tasks`, or by those that it holds.

    Raises:
        ValueError: a task that is asked for, or the first that the results hold, cannot be evaluated.
    """
    echo(f"Reading {predictions} ...", error=True)
    results = read_results(predictions)
    chosen = held_tasks(results) if tasks is None else tasks
    evaluated = []
    for task in chosen:
        try:
            # Each task reads the ground truth for itself: boxes do not depend on what is wrong with masks.
            evaluator = evaluator_of(make_evaluator, annotations, task, among=chosen)
            evaluator.truth.require_objects()
            evaluated.append(_evaluate_task(results, evaluator, predictions, annotations))
        except ValueError as error:
            if tasks is not None or not evaluated:
                raise
            echo(f"note: {NOUNS[task]} are not evaluated. {error}", error=True)
    return with_shapes(evaluated)


def _evaluate_task(
    results: Sequence[Any], evaluator: CocoEvaluator, predictions: Path, annotations: Path
) -> Evaluated:
    rows, notes = evaluator.read(results, source=str(predictions))
    if evaluator.task == "bbox":
        notes += check_boxes(rows, evaluator.truth, source=str(predictions))
    noun = NOUNS[evaluator.task]
    return Evaluated(
        rows=rows,
        metrics=evaluator.score(rows, notes),
        title=f"{predictions} against {annotations}" + ("" if evaluator.task == "bbox" else f": {noun}"),
        evaluator=evaluator,
        model=predictions.stem,
        data=annotations.stem,
        facts={
            "results": f"{noun} of {predictions}",
            "data": f"{annotations}: {counted(evaluator)}",
        },
    )
