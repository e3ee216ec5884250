"""The comparison as one HTML file that needs nothing else: pictures and script are inside."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined

from detector import __version__
from detector.reports.comparison import (
    CLASS_HEADER,
    METRIC_HEADER,
    Study,
    difference_rows,
    method,
    verdicts,
)
from detector.reports.costs import cost_tables
from detector.reports.figures import curves_figure, differences_figure, points_figure


def comparison_html(study: Study) -> str:
    environment = Environment(
        loader=PackageLoader("detector.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("comparison.html.j2").render(
        study=study,
        verdicts=verdicts(study),
        notes=[note for point in study.points for note in point.notes],
        differences=_embedded(differences_figure(study.points)),
        points=_embedded(points_figure(study)),
        curves=[_embedded(curves_figure(point)) for point in study.points],
        costs=[cost_tables(point) for point in study.points],
        metric_header=METRIC_HEADER,
        class_header=CLASS_HEADER,
        rows=difference_rows,
        method=method,
        version=__version__,
    )


def _embedded(svg: str | None) -> str | None:
    """The address of a picture that is inside the address."""
    return None if svg is None else f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
