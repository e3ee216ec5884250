"""COCO metrics for people to read: tables on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.evaluation.metrics import MONITORED, UNDEFINED, CurveMetric, Metrics
from detector.evaluation.statistics import Interval

SUMMARY_HEADER = ("metric", "value", "IoU", "area", "detections")
_MANY_CLASSES = 20  # with more, the best and the worst half of this number are shown
_ROWS_SPARED = "..."
_NAME_WIDTH, _GAP = 24, 3  # least width to fold names to; gap between columns

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
    """Print the metrics, the classes, best first, and the interval of AP.

    An undefined metric (no such object in the ground truth) is shown as "-". If there are more than 20
    classes, the ten best and the ten worst are shown; `complete_in` names the file with all of them.
    `trained` says that this command trained the model: the interval does not cover other seeds. A terminal
    gets tables with the columns that fit, any other output plain lines with all columns, whatever the width.
    """
    console = console or Console()
    classes, notes = class_rows(metrics, complete_in=complete_in)
    tables: list[tuple[str, Row, list[Row]]] = [
        (title, SUMMARY_HEADER, summary_rows(metrics)),
        ("By class", class_header(metrics), classes),
    ]
    for heading, header, rows in tables:
        if rows:
            print_table(heading, header, rows, console=console)
    if interval is not None:
        text = interval_text(interval) + "; another seed may differ by more" * trained
        notes = [f"AP {interval.value:.3f} ({text})", *notes]
    for note in (*notes, *(f"note: {note}" for note in metrics.notes)):
        console.print(Text(note, style="dim"), soft_wrap=True)


def summary_rows(metrics: Metrics) -> list[Row]:
    """Return a row for each metric, with its area, and IoU and limit where it is one of the curves."""
    rows: list[Row] = []
    for spec in metrics.specs:
        iou, limit = (spec.iou_label, str(spec.limit)) if isinstance(spec, CurveMetric) else ("", "")
        rows.append((spec.label, spec.shown(metrics.values[spec.name]), iou, spec.area, limit))
    return rows


def class_header(metrics: Metrics) -> Row:
    return ("class", *(spec.label for spec in metrics.specs if spec.by_class))


def print_table(title: str, header: Row, rows: Sequence[Row], *, console: Console) -> None:
    """Print rows of text, right-aligned but for the first column; plain text if not on a terminal."""
    if console.is_terminal:
        console.print(Text(title, style="bold"), soft_wrap=True)  # so that a path in it copies as one line
        console.print(_rich_table(header, rows, width=console.width))
    else:
        console.print(_plain_table(title, header, rows), markup=False, highlight=False, soft_wrap=True)


def class_rows(metrics: Metrics, *, complete_in: str | None) -> tuple[list[Row], list[str]]:
    """Return the rows of the class table, best first, and notes on the classes that it leaves out.

    If there are many classes, those between the best and the worst are left out; `complete_in` names the file
    with all of them. None: every class has a row.
    """
    per_class, specs = metrics.per_class, [spec for spec in metrics.specs if spec.by_class]
    scored = {name: numbers for name, numbers in per_class.items() if numbers[MONITORED.name] >= 0}
    names = sorted(scored, key=lambda name: (MONITORED.rank(scored[name][MONITORED.name]), name))
    rows = [(name, *(s.shown(scored[name].get(s.name, UNDEFINED)) for s in specs)) for name in names]
    notes = []
    if complete_in is not None and len(rows) > _MANY_CLASSES:
        half = _MANY_CLASSES // 2
        spared = len(rows) - 2 * half
        rows = [*rows[:half], (_ROWS_SPARED, *[""] * len(specs)), *rows[-half:]]
        notes.append(f"{half} best and {half} worst classes; the {spared} between them are in {complete_in}.")
    absent = [name for name in per_class if name not in scored]
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        notes.append(f"{_counted(len(absent))} without an object in the ground truth: {shown}")
    return rows, notes


def interval_text(interval: Interval) -> str:
    return f"95 % over images {interval.low:.3f} to {interval.high:.3f}"


def signed(value: float) -> str:
    """Format a difference like `+0.012`; one that rounds to zero has no sign."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def _counted(classes: int) -> str:
    return "1 class" if classes == 1 else f"{classes} classes"


def _rich_table(header: Row, rows: Sequence[Row], *, width: int) -> Table:
    """Build a table at most `width` wide: fold long names and drop the last columns, but never a digit."""
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
