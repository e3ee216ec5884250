"""The report that a training prints and writes at its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import Metrics
from detector.evaluation.result_files import read_results
from detector.evaluation.statistics import Interval
from detector.exceptions import exit_code, interrupted
from detector.reports.tables import print_coco_metrics
from detector.runs.console import echo
from detector.runs.context import Context
from detector.runs.curves import read_curve, read_losses, read_offsets
from detector.runs.options import TrainOptions
from detector.runs.report import Evaluated, write_run_report
from detector.runs.resume import resume_hint
from detector.training.callbacks import Checkpoints
from detector.training.trainer import TrainingOptions


def report_training(
    checkpoints: Checkpoints, options: TrainOptions, context: Context, *, evaluator: CocoEvaluator, note: str
) -> None:
    """Print the metrics of the best checkpoint, as its validation stored them, and write report.html.

    An interrupt ends the process, after a message on how to finish.
    """
    files, val_set = checkpoints.files, options.data.val_set
    try:
        echo(f"Reading {files.predictions} ...", error=True)
        metrics = Metrics.from_dict(files.read_metrics(), evaluator.specs)
        subject = _validated_images(options.training, of=len(val_set), evaluator=evaluator)
        title = f"{checkpoints.best} (epoch {checkpoints.best_epoch}) on {subject}"
        rows = evaluator.rows(read_results(files.predictions))
        evaluated = Evaluated(rows, metrics, title, evaluator, val_set.read_image)
        interval = _write_report(checkpoints, evaluated, context, notes=[note] if note else [])
        if note:
            echo(f"note: {note}")
        echo()
        print_coco_metrics(
            metrics, title=title, interval=interval, trained=True, complete_in=str(files.metrics)
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


def _write_report(
    checkpoints: Checkpoints, evaluated: Evaluated, context: Context, *, notes: Sequence[str]
) -> Interval | None:
    """Write the report and return the interval of AP; only warn, and return None, if writing fails."""
    folder = checkpoints.output_dir
    try:
        return write_run_report(
            folder,
            evaluated,
            notes=notes,
            curve=read_curve(folder),
            losses=read_losses(folder),
            offsets=read_offsets(folder),
        )
    except OSError as error:
        hint = resume_hint(checkpoints, context)
        echo(f"warning: the report is not complete. {error} {hint}", error=True)
        return None


def _validated_images(options: TrainingOptions, *, of: int, evaluator: CocoEvaluator) -> str:
    """Return in words which validation images were used: all, or the first ones."""
    count = evaluator.truth.num_images
    if count == of:
        return "the validation images"
    limit = f"training.limit_val_batches={options.limit_val_batches}"
    return f"the first {count} of {of} validation images ({limit})"
