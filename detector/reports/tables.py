"""COCO metrics for the eye: tables on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.evaluation.coco import CocoMetrics
from detector.evaluation.statistics import Interval

# (name, IoU, area, detections an image): the lines of COCO's own summary, in its order.
_TWELVE = (
    ("AP", "0.50:0.95", "all", 100),
    ("AP50", "0.50", "all", 100),
    ("AP75", "0.75", "all", 100),
    ("APs", "0.50:0.95", "small", 100),
    ("APm", "0.50:0.95", "medium", 100),
    ("APl", "0.50:0.95", "large", 100),
    ("AR1", "0.50:0.95", "all", 1),
    ("AR10", "0.50:0.95", "all", 10),
    ("AR100", "0.50:0.95", "all", 100),
    ("ARs", "0.50:0.95", "small", 100),
    ("ARm", "0.50:0.95", "medium", 100),
    ("ARl", "0.50:0.95", "large", 100),
)
CLASS_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
_MANY_CLASSES = 20  # more than this: the best and the worst half of it
_ROWS_SPARED = "..."
_NAME_WIDTH, _GAP = 24, 3  # what a name is folded to at least; what stands between two columns

Row = tuple[str, ...]


def print_coco_metrics(
    metrics: CocoMetrics,
    *,
    title: str,
    interval: Interval | None = None,
    trained: bool = False,
    complete_in: str = "metrics.json",
    console: Console | None = None,
) -> None:
    """Print the twelve numbers and the classes, best first, and the interval of AP.

    A number that is undefined (no such object in the ground truth) is shown as "-". Of more than 20 classes
    the ten best and the ten worst are shown; `complete_in` names the file with all of them. `trained` says
    that the model was trained by this command, whose other seeds the interval does not cover. On a terminal
    these are tables with the columns that fit, otherwise plain lines with all, whatever the width.
    """
    console = console or Console()
    classes, notes = class_rows(metrics.per_class, complete_in=complete_in)
    tables: list[tuple[str, Row, list[Row]]] = [
        (title, ("metric", "value", "IoU", "area", "detections"), summary_rows(metrics)),
        ("By class", ("class", *CLASS_COLUMNS), classes),
    ]
    for heading, header, rows in tables:
        if rows:
            print_table(heading, header, rows, console=console)
    if interval is not None:
        told = told_interval(interval) + "; another seed may differ by more" * trained
        notes = [f"AP {interval.value:.3f} ({told})", *notes]
    for note in (*notes, *(f"note: {note}" for note in metrics.notes)):
        console.print(Text(note, style="dim"), soft_wrap=True)


def summary_rows(metrics: CocoMetrics) -> list[Row]:
    """The twelve numbers, each with its IoU, area and limit."""
    return [(name, _shown(getattr(metrics, name)), *map(str, rest)) for name, *rest in _TWELVE]


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
    """Rows of the class table, best AP first, and notes on the classes that are not in it: of many, those
    between the best and the worst, which `complete_in` names the file of. None: all have a row."""
    scored = {name: numbers for name, numbers in per_class.items() if numbers["AP"] >= 0}
    names = sorted(scored, key=lambda name: (-scored[name]["AP"], name))
    rows = [(name, *(_shown(scored[name][column]) for column in CLASS_COLUMNS)) for name in names]
    notes = []
    if complete_in is not None and len(rows) > _MANY_CLASSES:
        half = _MANY_CLASSES // 2
        spared = len(rows) - 2 * half
        rows = [*rows[:half], (_ROWS_SPARED, *[""] * len(CLASS_COLUMNS)), *rows[-half:]]
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


def _shown(value: float) -> str:
    return "-" if value < 0 else f"{value:.4f}"


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
        table.add_row(*(Text(row[column]) for column in columns), style="bold" if row[0] == "AP" else "")
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
