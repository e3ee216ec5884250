"""Reports as one self-contained HTML file, with figures and script inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from detector.evaluation.errors import ErrorAnalysis
from detector.reports.comparison import (
    CLASS_DIFFERENCE_HEADER,
    METRIC_HEADER,
    clearest_classes,
    difference_rows,
    means,
    method,
    verdicts,
)
from detector.reports.costs import cost_tables
from detector.reports.errors import (
    confused_header,
    confusion_figure,
    confusion_rows,
    error_curves_figure,
    error_header,
    error_rows,
)
from detector.reports.figures import (
    conditions_figure,
    curves_figure,
    differences_figure,
    losses_figure,
    run_figure,
)
from detector.reports.gallery import Changes
from detector.reports.offsets import OFFSET_HEADER, offset_rows, offsets_figure
from detector.reports.run import RunReport
from detector.reports.study import Study
from detector.reports.tables import SUMMARY_HEADER, class_header, class_rows, summary_rows, told_interval
from detector.version import __version__


def comparison_html(study: Study, changes: Sequence[Changes] = ()) -> str:
    return _rendered(
        "comparison.html.j2",
        study=study,
        verdicts=verdicts(study),
        notes=[note for condition in study.conditions for note in condition.notes],
        differences=_embedded(differences_figure(study.conditions)),
        conditions=_embedded(conditions_figure(study)),
        curves=[_embedded(curves_figure(condition)) for condition in study.conditions],
        costs=[cost_tables(condition) for condition in study.conditions],
        metric_header=METRIC_HEADER,
        class_header=CLASS_DIFFERENCE_HEADER,
        rows=difference_rows,
        clearest_classes=clearest_classes,
        method=method,
        means=means,
        errors=[
            _errors(condition.errors, condition.class_names, of=condition.errors_of)
            for condition in study.conditions
        ],
        changes=changes,
    )


def run_html(run: RunReport) -> str:
    metrics = run.metrics
    classes, _ = class_rows(metrics, complete_in=None)
    shown, notes = class_rows(metrics, complete_in="the table of all classes")
    return _rendered(
        "run.html.j2",
        run=run,
        headline=[(s.label, s.shown(metrics.values[s.name])) for s in metrics.specs if s.in_log],
        notes=notes,
        interval=told_interval(run.interval) if run.interval else None,
        curves=_embedded(run_figure(run.curve) if run.curve else None),
        losses=_embedded(losses_figure(run.losses) if run.losses else None),
        offset_header=OFFSET_HEADER,
        offset_rows=offset_rows(run.offsets),
        offset_curves=_embedded(offsets_figure(run.offsets) if run.offsets else None),
        metric_header=SUMMARY_HEADER,
        metric_rows=summary_rows(metrics),
        class_header=class_header(metrics),
        shown_classes=shown,
        class_rows=classes,
        errors=_errors({"value": run.errors}, run.class_names),
    )


def _rendered(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("detector.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(version=__version__, **values)


def _errors(
    errors: Mapping[str, ErrorAnalysis], class_names: Sequence[str], *, of: str = ""
) -> dict[str, Any] | None:
    """Return what the template's macro shows; `of` says which runs."""
    if not errors:
        return None
    return {
        "header": error_header(errors),
        "rows": error_rows(errors),
        "curves": _embedded(error_curves_figure(errors, of=of)),
        "confusion": _embedded(confusion_figure(errors, class_names, of=of)),
        "confused_header": confused_header(errors),
        "confused": confusion_rows(errors, class_names),
    }


def _embedded(svg: str | None) -> str | None:
    """Return a data: URL that contains the figure."""
    return None if svg is None else f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
