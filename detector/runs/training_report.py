"""The report that a training prints and writes at its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.coco.annotations import CocoAnnotations
from detector.data.collate import collate
from detector.data.datamodule import DetectionDataModule
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import MONITORED, Metrics
from detector.evaluation.result_files import read_results
from detector.evaluation.several import TaskEvaluators
from detector.evaluation.statistics import Interval
from detector.evaluation.task_metrics import metric_name
from detector.exceptions import exit_code, interrupted
from detector.option_types import TaskName
from detector.reports.boxes import Boxes
from detector.reports.gallery import boxed_image
from detector.reports.tables import print_coco_metrics
from detector.run_folder import RunFolder
from detector.runs.console import echo
from detector.runs.context import Context
from detector.runs.curves import read_curve, read_losses, read_offsets
from detector.runs.head import counted, training_head
from detector.runs.options import TrainOptions
from detector.runs.parts import require_same_classes, validated_truth
from detector.runs.report import Evaluated, evaluated_tasks, folder_of, write_run_report
from detector.runs.resume import resume_hint
from detector.training.callbacks import Checkpoints
from detector.training.trainer import TrainingOptions

_BATCH_IMAGES = 12  # in the report


def report_training(
    checkpoints: Checkpoints,
    options: TrainOptions,
    context: Context,
    *,
    evaluators: TaskEvaluators,
    note: str,
) -> None:
    """Print the metrics of the best checkpoint, as its validation stored them, and write report.html.

    Tasks other than boxes have a report each, in a folder of their own.

    An interrupt ends the process, after a message on how to finish.
    """
    files, val_set = checkpoints.files, options.data.val_set
    try:
        echo(f"Reading {files.predictions} ...", error=True)
        subject = _validated_images(options.training, of=len(val_set), evaluator=evaluators.boxes)
        of_tasks = evaluated_tasks(
            evaluators,
            read_results(files.predictions),
            Metrics.from_dict(files.read_metrics(), evaluators.specs),
            title=f"{checkpoints.best} (epoch {checkpoints.best_epoch}) on {subject}",
            read_image=val_set.read_image,
        )
        notes = [note] if note else []
        intervals = [
            _write_report(
                checkpoints,
                one,
                options.data,
                context,
                folder=folder_of(checkpoints.output_dir, number, one).path,
                notes=notes,
            )
            for number, one in enumerate(of_tasks)
        ]
        if note:
            echo(f"note: {note}")
        echo()
        for one, interval in zip(of_tasks, intervals, strict=True):
            print_coco_metrics(
                one.metrics, title=one.title, interval=interval, trained=True, complete_in=str(files.metrics)
            )
    except KeyboardInterrupt as interrupt:
        when = f"{interrupted(interrupt)} while the report was written"
        echo(f"{when}. {resume_hint(checkpoints, context)}", error=True)
        sys.exit(exit_code(interrupt))
    for label, path in (
        ("report", files.report),
        ("best checkpoint", files.best),
        ("last checkpoint", files.last),
        ("metrics", files.metrics),
        ("detections", files.predictions),
        ("losses and metrics of each epoch", files.epochs),
        ("curves (tensorboard --logdir)", files.tensorboard),
    ):
        if path.exists():
            echo(f"{label}: {path}")


def finish_report(
    resumed: Checkpoint, options: TrainOptions, context: Context, *, tasks: tuple[TaskName, ...]
) -> None:
    """Write the missing report of a completed training, without training."""
    echo(f"{resumed.path} has all its epochs: its report is written")
    data, output_dir = options.data, Path(options.output_dir)
    data.prepare_data()
    data.setup("fit")
    require_same_classes(resumed, data.class_names, where=str(data.val_set.annotations.path))
    if resumed.epoch_rows:
        RunFolder(output_dir).write_epochs(resumed.epoch_rows)
    checkpoints = Checkpoints(output_dir)
    checkpoints.best_epoch = load_checkpoint(checkpoints.best).epoch
    truth = validated_truth(data.val_set, context.config)
    evaluators = TaskEvaluators.of(options.evaluation, truth, tasks)
    note = early_stop_note(options.training, epochs=resumed.epoch)
    report_training(checkpoints, options, context, evaluators=evaluators, note=note)


def early_stop_note(options: TrainingOptions, *, epochs: int) -> str:
    """Explain why a run stopped after `epochs`; return "" if it ran all of them."""
    if epochs >= options.max_epochs:
        return ""
    patience, planned = options.early_stopping_patience, options.max_epochs
    validations = "1 validation" if patience == 1 else f"{patience} validations"
    return (
        f"stopped after epoch {epochs} of {planned}: no better val/{options.monitor} in {validations} "
        f"(training.early_stopping_patience={patience}); the schedule was planned for {planned} epochs"
    )


def _write_report(
    checkpoints: Checkpoints,
    evaluated: Evaluated,
    data: DetectionDataModule,
    context: Context,
    *,
    folder: Path,
    notes: Sequence[str],
) -> Interval | None:
    """Write a report to `folder` and return the interval of AP; only warn, and return None, if that fails."""
    run = checkpoints.output_dir
    try:
        column = f"val/{metric_name(evaluated.evaluator.task, MONITORED.name)}"
        curve, split = read_curve(run, column=column), data.train_set.annotations
        contents = f"{split.object_count:,} objects in {len(split):,} training images"
        return write_run_report(
            folder,
            evaluated,
            training_head(
                run,
                curve,
                checkpoint=evaluated.title,
                contents=counted(evaluated.evaluator, training=contents),
            ),
            notes=notes,
            curve=curve,
            losses=read_losses(run),
            offsets=read_offsets(run),
            batches=training_batches(data) if evaluated.evaluator.task == "bbox" else None,
            train_boxes=Boxes.of_annotations(split.of_categories(_labels(evaluated.evaluator, split))),
        )
    except OSError as error:
        hint = resume_hint(checkpoints, context)
        echo(f"warning: the report is not complete. {error} {hint}", error=True)
        return None


def _labels(evaluator: CocoEvaluator, split: CocoAnnotations) -> np.ndarray:
    """Return the labels, in a split, of the classes that are evaluated: with keypoints perhaps not all."""
    evaluated = evaluator.truth.annotations.category_ids
    return np.flatnonzero(np.isin(split.category_ids, evaluated))


def training_batches(data: DetectionDataModule) -> dict[str, Any]:
    """Return the first batches of the first epoch for the report: images with padding, and their boxes."""
    images: list[dict[str, Any]] = []
    owner, classes, boxes = [], [], []
    for keys in data.train_sampler():
        batch = collate([data.train_set[key] for key in keys])
        for number, (_, index) in enumerate(keys[: _BATCH_IMAGES - len(images)]):
            valid = batch.targets.valid[number]
            owner += [len(images)] * int(valid.sum())
            classes += batch.targets.labels[number][valid].tolist()
            corners = batch.targets.boxes[number][valid].numpy()
            sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            boxes += np.round(sides.astype(float), 1).ravel().tolist()
            name = data.train_set.annotations.file_names[index]
            images.append(boxed_image(batch.images[number].permute(1, 2, 0).numpy(), name=name))
        if len(images) >= _BATCH_IMAGES:
            break
    objects = {"image": owner, "class": classes, "box": boxes}
    return {"images": images, "objects": objects, "classes": [*data.class_names]}


def _validated_images(options: TrainingOptions, *, of: int, evaluator: CocoEvaluator) -> str:
    """Return in words which validation images were used: all, or the first ones."""
    count = evaluator.truth.num_images
    if count == of:
        return "the validation images"
    limit = f"training.limit_val_batches={options.limit_val_batches}"
    return f"the first {count} of {of} validation images ({limit})"
