"""A table and figures of the errors of one or several models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from detector.evaluation.errors import RECALLS, ErrorAnalysis
from detector.reports.figures import as_svg, in_style, new_figure, short, variant_colour

_MANY_CLASSES = 25  # a larger matrix is unreadable
_MOST_CONFUSED = 20


def error_header(errors: Mapping[str, ErrorAnalysis]) -> tuple[str, ...]:
    return ("error (detections at best F1 / of all)", *errors)


def error_rows(errors: Mapping[str, ErrorAnalysis]) -> list[tuple[str, ...]]:
    """Return the rows of the error table, with a column for each model."""
    found = errors.values()
    rows = []
    for kind, name in _NAMES.items():
        cells = (f"{e.lost[kind]:.3f} ({e.counts_at_best[kind]:,} / {e.counts[kind]:,})" for e in found)
        rows.append((f"AP50 lost to {name}", *cells))
    rows.append(("best F1, from score", *(f"{e.best_f1:.3f}, {e.best_score:.2f}" for e in found)))
    for name, part in _LRP.items():
        rows.append((name, *(_shown(getattr(e.lrp, part)) for e in found)))
    return rows


@in_style
def error_curves_figure(errors: Mapping[str, ErrorAnalysis], *, of: str = "") -> str:
    """Plot precision against recall, and F1 against the score threshold; `of` is the title."""
    figure = new_figure(height_in=3.2)
    left, right = figure.subplots(1, 2)
    for number, (name, found) in enumerate(errors.items()):
        colour = variant_colour(number)
        for iou, line in (("0.50", "-"), ("0.75", "--")):
            label = f"{short(name)} at IoU {iou}" if len(errors) > 1 else f"at IoU {iou}"
            left.plot(RECALLS, found.precision[iou], color=colour, linestyle=line, label=label)
        right.plot(found.scores, found.f1, color=colour)
        right.plot([found.best_score], [found.best_f1], "o", color=colour)
    left.set(xlabel="recall", ylabel="precision")
    right.set(xlabel="score threshold", ylabel="F1 at IoU 0.50")
    left.set(xlim=(0, 1), ylim=(0, 1.02))
    right.set(ylim=(0, 1.02))
    left.legend(frameon=False, fontsize="small")
    figure.suptitle(of, fontsize="medium")
    return as_svg(figure)


@in_style
def confusion_figure(
    errors: Mapping[str, ErrorAnalysis], class_names: Sequence[str], *, of: str = ""
) -> str | None:
    """Plot the share of the objects of each class that were detected as each class; `of` is the title.

    Returns None with too many classes to read.
    """
    if len(class_names) > _MANY_CLASSES:
        return None
    size = len(class_names) + 1
    columns = min(2, len(errors))
    lines = math.ceil(len(errors) / columns)
    figure = new_figure(height_in=lines * max(2.6, 0.9 + 0.28 * size))
    panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for axes, (name, found) in zip(panels, errors.items(), strict=False):
        counts = np.zeros((size, size))
        for row, column, count in found.confusion:
            counts[row, column] = count
        share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        share[-1] = np.nan  # the number of background regions is undefined
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(counts > 0):
            dark = share[row, column] > 0.6
            axes.text(
                column,
                row,
                f"{counts[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize="x-small",
                color="white" if dark else "black",
            )
        names = [*map(short, class_names), "nothing"]
        axes.set_xticks(range(size), names, rotation=45, ha="right", fontsize="x-small")
        axes.set_yticks(range(size), names, fontsize="x-small")
        title = f"{short(name)}, {_from_score(found)}" if len(errors) > 1 else _from_score(found)
        axes.set(title=title, xlabel="found as", ylabel="is")
    for axes in panels[len(errors) :]:
        axes.remove()
    figure.suptitle(of, fontsize="medium")
    return as_svg(figure, grid=False)


def confused_header(errors: Mapping[str, ErrorAnalysis]) -> tuple[str, ...]:
    return ("taken for another class", *(f"{name}, {_from_score(found)}" for name, found in errors.items()))


def confusion_rows(errors: Mapping[str, ErrorAnalysis], class_names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the pairs of classes that any model confused most, with the count of each model."""
    counts = {name: {(i, j): n for i, j, n in found.confusion} for name, found in errors.items()}
    pairs = {pair for of_one in counts.values() for pair in of_one if _is_confused(pair, len(class_names))}
    most = sorted(pairs, key=lambda pair: (-max(of_one.get(pair, 0) for of_one in counts.values()), pair))
    return [
        (
            f"{class_names[i]} as {class_names[j]}",
            *(str(of_one.get((i, j), 0)) for of_one in counts.values()),
        )
        for i, j in most[:_MOST_CONFUSED]
    ]


def _from_score(found: ErrorAnalysis) -> str:
    return f"from score {found.best_score:.2f}"


def _is_confused(pair: tuple[int, int], nothing: int) -> bool:
    return pair[0] != pair[1] and nothing not in pair


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


_NAMES = {
    "classification": "wrong classes",
    "localisation": "inexact boxes",
    "both": "wrong classes and inexact boxes",
    "duplicate": "duplicates",
    "background": "detections of nothing",
    "missed": "missed objects",
}
_LRP = {
    "oLRP": "total",
    "oLRP: 1 - mean IoU": "localisation",
    "oLRP: 1 - precision": "false_positives",
    "oLRP: 1 - recall": "missed",
}
