"""The report of one model on one dataset, which training and evaluation write."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import ErrorAnalysis, analyse_errors
from detector.evaluation.matching import Matched, Rows, match
from detector.evaluation.metrics import Metrics
from detector.evaluation.statistics import Interval, ap_interval
from detector.files import write_json, write_text_atomically
from detector.reports.gallery import Example, Found, ReadPicture, examples, worst
from detector.reports.html import run_html
from detector.reports.run import RunReport
from detector.reports.study import Curve, Losses, OffsetCurve
from detector.run_folder import RunFolder

_PICTURED = 6


@dataclass(frozen=True)
class Evaluated:
    """The detections of a model and their metrics.

    `title` names the model and its data, `picture` reads an image by its id, `results` are the detections of
    a checkpoint in COCO format, to be written.
    """

    rows: Rows
    metrics: Metrics
    title: str
    evaluator: CocoEvaluator
    picture: ReadPicture | None = None
    results: Sequence[dict[str, Any]] = ()

    @cached_property
    def matched(self) -> Matched:
        """The detections matched with the ground truth, once for the whole report."""
        return match(self.rows, self.evaluator.truth)


def analysed(matched: Matched) -> tuple[ErrorAnalysis, Found]:
    """Return the error analysis of detections, and the detections for the galleries of the report."""
    errors = analyse_errors(matched)
    return errors, Found.of(matched, score=errors.best_score)


def announce(text: str) -> None:
    """Print to stderr which possibly long step begins now."""
    print(text, file=sys.stderr, flush=True)


def write_run_report(
    output_dir: Path,
    found: Evaluated,
    *,
    notes: Sequence[str] = (),
    curve: Curve | None = None,
    losses: Losses | None = None,
    offsets: Mapping[str, OffsetCurve] | None = None,
) -> Interval | None:
    """Write the report of one model to `output_dir` and return the interval of AP.

    `report.html` shows the worst images if they can be read. The error analysis is also written to
    `errors.json`, the interval to `interval.json`. `curve`, `losses` and `offsets` (by layer) come from the
    model's training.
    """
    evaluator, files = found.evaluator, RunFolder(output_dir)
    announce(f"Analyzing {len(found.rows.scores):,} detections of {len(evaluator.class_names):,} classes ...")
    errors, model = analysed(found.matched)
    write_json(files.errors, asdict(errors))
    announce("Drawing the images again and again for the interval of AP ...")
    interval = ap_interval(found.matched)
    write_json(files.interval, {"AP": None if interval is None else asdict(interval)})
    shown: Sequence[Example] = ()
    if found.picture is not None:
        chosen = worst(model.image_f1, count=_PICTURED)
        shown = examples(chosen, {"found": model}, read=found.picture)
    report = RunReport(
        title=found.title,
        metrics=found.metrics,
        errors=errors,
        class_names=evaluator.class_names,
        num_images=evaluator.truth.num_images,
        interval=interval,
        notes=notes,
        curve=curve,
        losses=losses,
        offsets=offsets or {},
        examples=shown,
    )
    write_text_atomically(files.report, run_html(report))
    return interval
