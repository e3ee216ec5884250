"""Tables show the numbers whole, on any terminal and in a file."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from detector.evaluation.coco import CocoMetrics
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.statistics import Interval
from detector.reports.tables import class_rows, print_coco_metrics


def metrics(per_class: dict[str, float]) -> CocoMetrics:
    numbers: dict[str, Any] = {name: 0.11 + 0.01 * i for i, name in enumerate(METRIC_NAMES)} | {"APl": -1.0}
    return CocoMetrics(numbers, {n: dict.fromkeys(METRIC_NAMES, v) for n, v in per_class.items()})


def printed(
    value: CocoMetrics, *, interval: Interval | None = None, trained: bool = False, **console: Any
) -> str:
    out = io.StringIO()
    print_coco_metrics(
        value,
        title="A title",
        interval=interval,
        trained=trained,
        console=Console(file=out, **console),
    )
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_all_twelve_numbers_are_shown(terminal: bool) -> None:
    lines = printed(metrics({}), force_terminal=terminal, color_system=None, width=100).splitlines()
    shown = [
        tuple(line.split()[:2]) for line in lines if line.split()[:1] and line.split()[0] in METRIC_NAMES
    ]
    assert shown == [(n, "-" if n == "APl" else f"{0.11 + 0.01 * i:.4f}") for i, n in enumerate(METRIC_NAMES)]


def test_a_file_gets_no_control_codes_or_boxes_and_no_wrapped_lines() -> None:
    text = printed(metrics({"a rather long class name " * 4: 0.5}), force_terminal=False, width=40)
    assert "\x1b" not in text
    assert "─" not in text
    assert sum("a rather long" in line for line in text.splitlines()) == 1


@pytest.mark.parametrize("width", [30, 45, 60, 80])
def test_a_narrow_terminal_loses_columns_not_digits(width: int) -> None:
    text = printed(
        metrics({"a rather long class name": 0.5}), force_terminal=True, color_system=None, width=width
    )
    lines = text.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    numbers = {word for line in lines for word in line.split() if word.startswith("0.") and ":" not in word}
    assert {len(number) for number in numbers - {"0.50", "0.75"}} == {len("0.5000")}


def test_class_names_are_not_markup() -> None:
    assert "[red]apple" in printed(metrics({"[red]apple": 0.5}), force_terminal=True, width=100)


def test_classes_are_sorted_best_first() -> None:
    rows, notes = class_rows(metrics({"b": 0.2, "a": 0.9, "c": 0.2}), complete_in="m.json")
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert notes == []


def test_many_classes_are_cut_in_the_middle_with_a_note() -> None:
    metrics_of_50 = metrics({f"c{i:02}": i / 100 for i in range(50)})
    rows, notes = class_rows(metrics_of_50, complete_in="out/metrics.json")
    assert [row[0] for row in rows] == [
        *(f"c{i:02}" for i in range(49, 39, -1)),
        "...",
        *(f"c{i:02}" for i in range(9, -1, -1)),
    ]
    assert notes == ["10 best and 10 worst classes; the 30 between them are in out/metrics.json."]


def test_classes_without_objects_are_named_below() -> None:
    rows, notes = class_rows(metrics({"seen": 0.5, "unseen": -1.0}), complete_in="m.json")
    assert [row[0] for row in rows] == ["seen"]
    assert notes == ["1 class without an object in the ground truth: unseen"]


def test_another_seed_is_told_of_a_training_alone() -> None:
    interval = Interval(0.5, 0.4, 0.6, 50, 300)
    assert "another seed may differ" in printed(metrics({}), interval=interval, trained=True)
    assert "another seed" not in printed(metrics({}), interval=interval)


def test_notes_on_the_metrics_are_told() -> None:
    assert "note: capped" in printed(replace(metrics({}), notes=["capped"]))


def test_path_in_a_title_is_one_line_on_a_narrow_terminal() -> None:
    out = io.StringIO()
    title = f"/a/rather/long/path/{'x' * 60}/best.ckpt (epoch 3) on the validation images"
    console = Console(file=out, force_terminal=True, color_system=None, width=40)
    print_coco_metrics(metrics({}), title=title, console=console)
    assert title in out.getvalue().splitlines()
