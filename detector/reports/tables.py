"""COCO metrics for the eye: tables on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.evaluation.metrics import BY_CLASS, COCO_METRICS, MONITORED, Metrics
from detector.evaluation.statistics import Interval

SUMMARY_HEADER = ("metric", "value", "IoU", "area", "detections")
CLASS_HEADER = ("class", *(spec.label for spec in BY_CLASS))
_MANY_CLASSES = 20  # more than this: the best and the worst half of it
_ROWS_SPARED = "..."
_NAME_WIDTH, _GAP = 24, 3  # what a name is folded to at least; what stands between two columns

Row = tuple[str, ...]


def print_coco_metrics(
    metrics: Metrics,
    *,
    title: str,
    interval: Interval | None = None,
    trained: bool = False,
    complete_in: str = "metrics.json",
    console: Console | None = None,
) -> None:
    """Print the numbers and the classes, best first, and the interval of AP.

    A number that is undefined (no such object in the ground truth) is shown as "-". Of more than 20 classes
    the ten best and the ten worst are shown; `complete_in` names the file with all of them. `trained` says
    that the model was trained by this command, whose other seeds the interval does not cover. On a terminal
    these are tables with the columns that fit, otherwise plain lines with all, whatever the width.
    """
    console = console or Console()
    classes, notes = class_rows(metrics.per_class, complete_in=complete_in)
    tables: list[tuple[str, Row, list[Row]]] = [
        (title, SUMMARY_HEADER, summary_rows(metrics)),
        ("By class", CLASS_HEADER, classes),
    ]
    for heading, header, rows in tables:
        if rows:
            print_table(heading, header, rows, console=console)
    if interval is not None:
        told = told_interval(interval) + "; another seed may differ by more" * trained
        notes = [f"AP {interval.value:.3f} ({told})", *notes]
    for note in (*notes, *(f"note: {note}" for note in metrics.notes)):
        console.print(Text(note, style="dim"), soft_wrap=True)


def summary_rows(metrics: Metrics) -> list[Row]:
    """Each number with its IoU, area and limit."""
    return [
        (spec.label, spec.shown(metrics.values[spec.name]), spec.iou_label, spec.area, str(spec.limit))
        for spec in COCO_METRICS
    ]


def print_table(title: str, header: Row, rows: Sequence[Row], *, console: Console) -> None:
    """Print rows of text, all columns but the first at the right. Elsewhere than on a terminal: plain."""
    if console.is_terminal:
        console.print(Text(title, style="bold"), soft_wrap=True)  # a path in it is copied as one line
        console.print(_rich_table(header, rows, width=console.width))
    else:
        console.print(_plain_table(title, header, rows), markup=False, highlight=False, soft_wrap=True)


def class_rows(
    per_class: Mapping[str, Mapping[str, float]], *, complete_in: str | None
) -> tuple[list[Row], list[str]]:
    """Rows of the class table, the best first, and notes on the classes that are not in it: of many, those
    between the best and the worst, which `complete_in` names the file of. None: all have a row."""
    scored = {name: numbers for name, numbers in per_class.items() if numbers[MONITORED.name] >= 0}
    names = sorted(scored, key=lambda name: (MONITORED.rank(scored[name][MONITORED.name]), name))
    rows = [(name, *(spec.shown(scored[name][spec.name]) for spec in BY_CLASS)) for name in names]
    notes = []
    if complete_in is not None and len(rows) > _MANY_CLASSES:
        half = _MANY_CLASSES // 2
        spared = len(rows) - 2 * half
        rows = [*rows[:half], (_ROWS_SPARED, *[""] * len(BY_CLASS)), *rows[-half:]]
        notes.append(f"{half} best and {half} worst classes; the {spared} between them are in {complete_in}.")
    absent = [name for name in per_class if name not in scored]
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        notes.append(f"{_counted(len(absent))} without an object in the ground truth: {shown}")
    return rows, notes


def told_interval(found: Interval) -> str:
    return f"95 % over images {found.low:.3f} to {found.high:.3f}"


def signed(value: float) -> str:
    """A difference: `+0.012`; what rounds to zero has no sign."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def _counted(classes: int) -> str:
    return "1 class" if classes == 1 else f"{classes} classes"


def _rich_table(header: Row, rows: Sequence[Row], *, width: int) -> Table:
    """A table at most `width` wide: long names are folded, and the last columns left out, never a digit."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    name_width = min(widths[0], _NAME_WIDTH)
    fitting = [
        c for c in range(1, len(header)) if name_width + sum(w + _GAP for w in widths[1 : c + 1]) < width
    ]
    columns = [0, *fitting]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        name, fixed = header[column], column > 0
        table.add_column(
            name, justify="right" if fixed else "left", no_wrap=fixed, overflow="crop" if fixed else "fold"
        )
    for row in rows:
        # Text, not markup: a class may be called "[red]".
        style = "bold" if row[0] == MONITORED.label else ""
        table.add_row(*(Text(row[column]) for column in columns), style=style)
    return table


def _plain_table(title: str, header: Row, rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([title, *lines, ""])
