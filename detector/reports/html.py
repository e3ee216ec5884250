"""Reports as one self-contained HTML file, with data, styles and scripts inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from detector.evaluation.errors import ErrorAnalysis
from detector.evaluation.metrics import MONITORED
from detector.option_types import TaskName
from detector.reports.boxes import split_charts
from detector.reports.charts import ap_chart, f1_chart, loss_chart, lr_chart, offsets_chart, precision_chart
from detector.reports.comparison import (
    CLASS_DIFFERENCE_HEADER,
    METRIC_HEADER,
    clearest_classes,
    difference_rows,
    means,
    method,
    verdicts,
)
from detector.reports.comparison_charts import conditions_chart, curves_chart, differences_chart
from detector.reports.costs import cost_tables
from detector.reports.errors import (
    KIND_HEADER,
    confused_header,
    confusion_rows,
    confusions,
    error_charts,
    error_header,
    error_rows,
    explanations,
    kind_rows,
    lrp_rows,
    measure_of,
)
from detector.reports.gallery import Changes
from detector.reports.offsets import OFFSET_HEADER, offset_rows
from detector.reports.run import RunReport
from detector.reports.study import Study
from detector.reports.tables import SUMMARY_HEADER, Row, class_header, class_rows, interval_text, summary_rows
from detector.version import __version__


def comparison_html(study: Study, changes: Sequence[Changes] = ()) -> str:
    task: TaskName = next((condition.task for condition in study.conditions), "bbox")
    return _rendered(
        "comparison.html.j2",
        study=study,
        verdicts=verdicts(study),
        notes=[*dict.fromkeys(note for condition in study.conditions for note in condition.notes)],
        differences=differences_chart(study.conditions),
        conditions=conditions_chart(study),
        curves=[curves_chart(condition) for condition in study.conditions],
        costs=[cost_tables(condition) for condition in study.conditions],
        metric_header=METRIC_HEADER,
        class_header=CLASS_DIFFERENCE_HEADER,
        rows=difference_rows,
        clearest_classes=clearest_classes,
        method=method,
        means=means,
        errors=[_errors(one.errors, one.class_names, one.task) for one in study.conditions],
        explanations=explanations(task),
        measure=measure_of(task),
        metric=next((condition.metric for condition in study.conditions), MONITORED.name),
        changes=changes,
    )


def run_html(run: RunReport) -> str:
    objects = {name: c.objects for name, c in zip(run.class_names, run.class_curves, strict=True)}
    classes, _ = class_rows(run.metrics, complete_in=None)
    shown, notes = class_rows(run.metrics, complete_in="the table of all classes")
    names, measure = class_header(run.metrics), measure_of(run.task)
    return _rendered(
        "run.html.j2",
        run=run,
        headline=[(s.label, s.shown(run.metrics.values[s.name])) for s in run.metrics.specs if s.in_log],
        notes=[*dict.fromkeys((*run.notes, *run.metrics.notes))],
        class_notes=notes,
        interval=interval_text(run.interval) if run.interval else None,
        learning=_learning_charts(run),
        offset_header=OFFSET_HEADER,
        offset_rows=offset_rows(run.offsets),
        metric_header=SUMMARY_HEADER,
        metric_rows=summary_rows(run.metrics),
        class_header=(names[0], "objects", *names[1:]),
        shown_classes=_with_objects(shown, objects),
        class_rows=_with_objects(classes, objects),
        class_charts=[
            (
                "Precision and recall of each class",
                precision_chart(run.class_curves, run.class_names, run.errors, measure=measure),
            ),
            (
                "F1 of each class by score",
                f1_chart(run.class_curves, run.class_names, run.errors, measure=measure),
            ),
        ],
        kind_header=KIND_HEADER,
        kind_rows=kind_rows(run.errors, run.task),
        lrp_rows=lrp_rows(run.errors, run.task),
        explanations=explanations(run.task),
        measure=measure,
        errors=_confusion({"": run.errors}, run.class_names),
        split_charts=split_charts(run.splits, run.class_names),
    )


def _with_objects(rows: Sequence[Row], objects: Mapping[str, int]) -> list[Row]:
    """Insert the number of objects behind the name of each class; the row of those left out has none."""
    return [(name, f"{objects[name]:,}" if name in objects else "", *cells) for name, *cells in rows]


def _learning_charts(run: RunReport) -> list[tuple[str, dict[str, Any]]]:
    charts = []
    best_step = None
    if run.curve and run.curve.best is not None:
        charts.append(("Validation AP", ap_chart(run.curve)))
        best_step = (run.curve.steps or run.curve.epochs)[run.curve.best]
    if run.losses:
        charts += [
            ("Losses", loss_chart(run.losses, best_step=best_step)),
            ("Learning rate", lr_chart(run.losses)),
        ]
    if run.offsets:
        charts.append(("Mean offset of each deformable layer", offsets_chart(run.offsets)))
    return charts


def _rendered(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("detector.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template(template).render(version=__version__, **values)


def _errors(
    errors: Mapping[str, ErrorAnalysis], class_names: Sequence[str], task: TaskName
) -> dict[str, Any] | None:
    """Return what the comparison's template shows of the errors of several models."""
    if not errors:
        return None
    return {
        "header": error_header(errors),
        "rows": error_rows(errors, task),
        "charts": error_charts(errors, task),
        **_confusion(errors, class_names),
    }


def _confusion(errors: Mapping[str, ErrorAnalysis], class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "confusions": confusions(errors, class_names),
        "confused_header": confused_header(errors),
        "confused": confusion_rows(errors, class_names),
    }
