"""Charts of a training and of a model's errors, as columns that the page's script draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from detector.evaluation.errors import RECALLS, ClassCurve, ErrorAnalysis
from detector.reports.study import Curve, Losses, OffsetCurve

Chart = dict[str, Any]

_STEPS_SHOWN = 400  # of a loss's points
_CLASSES_SHOWN = 100  # curves on a chart


def ap_chart(curve: Curve) -> Chart:
    """Plot validation AP against steps, the best epoch marked."""
    steps = curve.steps or curve.epochs
    known = [i for i, ap in enumerate(curve.ap) if ap is not None]
    best = curve.best
    return {
        "type": "lines",
        "x": {"label": "step" if curve.steps else "epoch", "min": 0, "whole": True},
        "y": {"label": "AP on the validation images", "min": 0, "room": 0.15},
        "series": [
            {
                "name": "",
                "color": 0,
                "dots": len(known) <= 50,
                "x": [steps[i] for i in known],
                "y": [_rounded(curve.ap[i]) for i in known],
            }
        ],
        "marks": []
        if best is None
        else [{"x": steps[best], "y": _rounded(curve.ap[best]), "color": 0, "text": _best_text(curve, best)}],
    }


def _best_text(curve: Curve, best: int) -> str:
    return f"best: epoch {curve.epochs[best]}, AP {curve.ap[best]:.4f}"


def loss_chart(losses: Losses, *, best_step: int | None = None) -> Chart:
    """Plot the losses against steps: of training (by step where known), and of validation dashed."""
    terms = [name for name in losses.train if name != "loss"]
    colors = {"loss": 0} | {name: number for number, name in enumerate(terms, start=1)}
    xs = [*(losses.steps or losses.epochs)]
    series = []
    for name, values in losses.train.items():
        x, y = _thinned(*losses.by_step[name]) if name in losses.by_step else (xs, values)
        series.append(_line(f"{_term(name)}, training", x, y, color=colors[name]))
    for name, values in losses.val.items():
        line = _line(f"{_term(name)}, validation", xs, values, color=colors.get(name))
        series.append({**line, "dash": "5 3", "dots": len(xs) <= 50})
    rules = [] if best_step is None else [{"x": best_step, "text": "best epoch"}]
    x_axis = {"label": "step" if losses.steps else "epoch", "min": 0, "whole": True}
    y_axis = {"label": "loss", "min": 0}
    return {"type": "lines", "x": x_axis, "y": y_axis, "series": series, "rules": rules}


def lr_chart(losses: Losses) -> Chart:
    """Plot the learning rate at the end of each epoch."""
    xs = losses.steps or losses.epochs
    return {
        "type": "lines",
        "x": {"label": "step" if losses.steps else "epoch", "min": 0, "whole": True},
        "y": {"label": "learning rate", "min": 0},
        "series": [{**_line("", xs, losses.lr, color=0), "dots": True}],
    }


def offsets_chart(curves: Mapping[str, OffsetCurve]) -> Chart:
    """Plot the mean offset of each deformable layer against epochs."""
    return {
        "type": "lines",
        "x": {"label": "epoch", "whole": True},
        "y": {"label": "mean offset, px", "min": 0},
        "series": [
            {**_line(layer, curve.epochs, curve.statistics["mean_px"], color=number), "dots": True}
            for number, (layer, curve) in enumerate(curves.items())
        ],
    }


def precision_chart(
    curves: Sequence[ClassCurve], names: Sequence[str], errors: ErrorAnalysis, *, measure: str = "IoU"
) -> Chart:
    """Plot precision against recall of each class at 0.50, the operating point marked, and the mean."""
    shown = _shown(curves)
    series = [
        {**_line(names[i], RECALLS.tolist(), _until_reached(curves[i].precision), color=place)}
        for place, i in enumerate(shown)
    ]
    for iou, dash in (("0.50", ""), ("0.75", "6 3")):
        mean = _line(f"mean at {measure} {iou}", RECALLS.tolist(), errors.precision[iou], color=None)
        series.append({**mean, "keep": True, "width": 2.6, "dash": dash})
    marks = [
        {"x": _rounded(at[1]), "y": _rounded(at[0]), "color": place, "of": names[i]}
        for place, i in enumerate(shown)
        if (at := curves[i].operating_point) is not None
    ]
    x, y = {"label": "recall", "min": 0, "max": 1}, {"label": "precision", "min": 0, "max": 1}
    return {"type": "lines", "x": x, "y": y, "series": series, "marks": marks if len(shown) <= 12 else []}


def f1_chart(
    curves: Sequence[ClassCurve], names: Sequence[str], errors: ErrorAnalysis, *, measure: str = "IoU"
) -> Chart:
    """Plot F1 of each class against the score threshold, and the mean, which is highest at the rule."""
    series = [
        _line(names[i], errors.scores, curves[i].f1, color=place) for place, i in enumerate(_shown(curves))
    ]
    series.append({**_line("mean", errors.scores, errors.f1, color=None), "keep": True, "width": 2.6})
    return {
        "type": "lines",
        "x": {"label": "score threshold"},
        "y": {"label": f"F1 at {measure} 0.50", "min": 0, "max": 1},
        "series": series,
        "rules": [
            {"x": errors.best_score, "text": f"best F1 {errors.best_f1:.3f} from {errors.best_score:.2f}"}
        ],
    }


def _shown(curves: Sequence[ClassCurve]) -> list[int]:
    """Return the classes to plot: those with objects, or the ones with most of them if there are many."""
    known = [i for i, curve in enumerate(curves) if curve.objects]
    return sorted(sorted(known, key=lambda i: -curves[i].objects)[:_CLASSES_SHOWN])


def _until_reached(precision: Sequence[float]) -> list[float | None]:
    """Replace the zeros behind the highest recall, but for the first, by None."""
    last = max((i for i, value in enumerate(precision) if value > 0), default=-1)
    return [value if i <= last + 1 else None for i, value in enumerate(precision)]


def _term(name: str) -> str:
    return "total" if name == "loss" else name.removeprefix("loss_")


def _line(name: str, x: Sequence[int | float], y: Sequence[float | None], *, color: int | None) -> Chart:
    return {"name": name, "color": color, "x": [_rounded(v) for v in x], "y": [_rounded(v) for v in y]}


def _rounded(value: int | float | None) -> float | None:
    """Keep five significant digits: more cannot be seen. Values that are not finite are left out, as None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _thinned(x: Sequence[int], y: Sequence[float]) -> tuple[list[int], list[float]]:
    """Average neighboring points until few are left."""
    width = -(-len(x) // _STEPS_SHOWN)
    parts = [slice(i, i + width) for i in range(0, len(x), width)]
    return [x[part][-1] for part in parts], [sum(y[part]) / len(y[part]) for part in parts]
