"""Tables and charts of the errors of one or several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detector.evaluation.errors import RECALLS, ErrorAnalysis
from detector.evaluation.tasks import NOUNS
from detector.option_types import TaskName

_MANY_CLASSES = 25  # a larger matrix is unreadable
_MOST_CONFUSED = 20

KIND_HEADER = ("kind of error", "AP50 lost", "at best F1", "in all")


@dataclass(frozen=True)
class Confusion:
    """The confusion of a model: for each class of objects, (count, share) of those detected as each class.

    `names` ends with "nothing". The last row has no shares: there is no number of backgrounds.
    """

    title: str
    names: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, float | None]]]]


def measure_of(task: TaskName) -> str:
    """Return what detections and objects are compared by: IoU, or OKS for keypoints."""
    return "OKS" if task == "keypoints" else "IoU"


def kind_rows(errors: ErrorAnalysis, task: TaskName = "bbox") -> list[tuple[str, ...]]:
    """Return the rows of one model's error table: each kind."""
    return [
        (
            name,
            f"{errors.lost[kind]:.3f}",
            f"{errors.counts_at_best[kind]:,}",
            f"{errors.counts[kind]:,}",
        )
        for kind, (name, _) in _kinds(task).items()
    ]


def lrp_rows(errors: ErrorAnalysis, task: TaskName = "bbox") -> list[tuple[str, ...]]:
    return [(_named(name, task), _shown(getattr(errors.lrp, part))) for name, part in _LRP.items()]


def error_header(errors: Mapping[str, ErrorAnalysis]) -> tuple[str, ...]:
    return ("AP50 lost to (at best F1 / in all)", *errors)


def error_rows(errors: Mapping[str, ErrorAnalysis], task: TaskName = "bbox") -> list[tuple[str, ...]]:
    """Return the rows of the error table of several models, with a column for each."""
    models = errors.values()
    rows = []
    for kind, (name, _) in _kinds(task).items():
        cells = (f"{e.lost[kind]:.3f} ({e.counts_at_best[kind]:,} / {e.counts[kind]:,})" for e in models)
        rows.append((name, *cells))
    rows.append(("best F1, from score", *(f"{e.best_f1:.3f}, {e.best_score:.2f}" for e in models)))
    for name, part in _LRP.items():
        rows.append((_named(name, task), *(_shown(getattr(e.lrp, part)) for e in models)))
    return rows


def error_charts(
    errors: Mapping[str, ErrorAnalysis], task: TaskName = "bbox"
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return titles, captions and charts of precision against recall, and of F1 against the score."""
    precision = [
        {
            "name": name,
            "quiet": iou != "0.50",
            "color": number,
            "dash": dash,
            "x": [round(recall, 2) for recall in RECALLS.tolist()],
            "y": [round(value, 4) for value in e.precision[iou]],
        }
        for number, (name, e) in enumerate(errors.items())
        for iou, dash in (("0.50", ""), ("0.75", "5 3"))
    ]
    f1 = [
        {
            "name": name,
            "color": number,
            "x": [round(s, 4) for s in e.scores],
            "y": [round(v, 4) for v in e.f1],
        }
        for number, (name, e) in enumerate(errors.items())
    ]
    marks = [
        {"x": e.best_score, "y": e.best_f1, "color": number, "of": name}
        for number, (name, e) in enumerate(errors.items())
    ]
    x, y = {"label": "recall", "min": 0, "max": 1}, {"label": "precision", "min": 0, "max": 1}
    score, at = {"label": "score threshold"}, {"label": f"F1 at {measure_of(task)} 0.50", "min": 0, "max": 1}
    return [
        (
            "Precision and recall",
            _named("solid: {measure} 0.50, dashed: {measure} 0.75", task),
            {"type": "lines", "x": x, "y": y, "series": precision},
        ),
        (
            "F1 by score",
            "dots: the best F1",
            {"type": "lines", "x": score, "y": at, "series": f1, "marks": marks},
        ),
    ]


def confusions(errors: Mapping[str, ErrorAnalysis], class_names: Sequence[str]) -> list[Confusion]:
    """Return the matrix of each model; empty with too many classes to read."""
    if len(class_names) > _MANY_CLASSES:
        return []
    names = [*class_names, "nothing"]
    matrices = []
    for model, analysis in errors.items():
        counts = {(row, column): count for row, column, count in analysis.confusion}
        rows = []
        for i, name in enumerate(names):
            cells = [counts.get((i, j), 0) for j in range(len(names))]
            total = sum(cells)
            shares = [None if i == len(class_names) else count / max(1, total) for count in cells]
            rows.append((name, [*zip(cells, shares, strict=True)]))
        title = f"{model}, {_from_score(analysis)}" if len(errors) > 1 else _from_score(analysis)
        matrices.append(Confusion(title, names, rows))
    return matrices


def confused_header(errors: Mapping[str, ErrorAnalysis]) -> tuple[str, ...]:
    if len(errors) == 1:
        return ("object taken for another class", *map(_from_score, errors.values()))
    return ("object taken for another class", *(f"{name}, {_from_score(e)}" for name, e in errors.items()))


def confusion_rows(errors: Mapping[str, ErrorAnalysis], class_names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the pairs of classes that any model confused most, with the count of each model."""
    counts = {name: {(i, j): n for i, j, n in e.confusion} for name, e in errors.items()}
    pairs = {pair for of_one in counts.values() for pair in of_one if _is_confused(pair, len(class_names))}
    most = sorted(pairs, key=lambda pair: (-max(of_one.get(pair, 0) for of_one in counts.values()), pair))
    return [
        (
            f"{class_names[i]} as {class_names[j]}",
            *(str(of_one.get((i, j), 0)) for of_one in counts.values()),
        )
        for i, j in most[:_MOST_CONFUSED]
    ]


def _from_score(errors: ErrorAnalysis) -> str:
    return f"from score {errors.best_score:.2f}"


def _is_confused(pair: tuple[int, int], nothing: int) -> bool:
    return pair[0] != pair[1] and nothing not in pair


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


_KINDS = {
    "classification": (
        "wrong classes",
        "The detection fits an object ({measure} 0.5 or more) of another class.",
    ),
    "localisation": (
        "inexact {shapes}",
        "An object of the class is near ({measure} 0.1 to 0.5), but the detection does not fit it.",
    ),
    "both": (
        "wrong classes and inexact {shapes}",
        "Near an object of another class only, and the detection does not fit it.",
    ),
    "duplicate": ("duplicates", "The object has a better detection already."),
    "background": ("detections of nothing", "No object is near ({measure} below 0.1)."),
    "missed": ("missed objects", "No detection of the object, not even one of the two first kinds."),
}
_LRP = {
    "oLRP": "total",
    "oLRP: 1 - mean {measure}": "localisation",
    "oLRP: 1 - precision": "false_positives",
    "oLRP: 1 - recall": "missed",
}


def explanations(task: TaskName = "bbox") -> dict[str, str]:
    """Return what each kind of error means, by its name."""
    return dict(_kinds(task).values())


def _kinds(task: TaskName) -> dict[str, tuple[str, str]]:
    return {kind: (_named(name, task), _named(why, task)) for kind, (name, why) in _KINDS.items()}


def _named(text: str, task: TaskName) -> str:
    return text.format(shapes=NOUNS[task], measure=measure_of(task))
