"""The text of the HTML reports; test_browser.py opens them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator, CocoMetrics
from detector.evaluation.errors import ClassCurve, analyze_errors
from detector.evaluation.metrics import METRIC_NAMES
from detector.reports.comparison import clearest_classes
from detector.reports.gallery import Changes
from detector.reports.html import comparison_html, run_html
from detector.reports.run import Head, RunReport
from detector.reports.study import Study
from tests.evaluation.worlds import world


def run_of_classes(count: int) -> RunReport:
    names = [f"class_{number}" for number in range(count)]
    halves: dict[str, Any] = dict.fromkeys(METRIC_NAMES, 0.5)
    metrics = CocoMetrics(halves, per_class=dict.fromkeys(names, halves))
    truth = world(3, np.random.default_rng(0))
    evaluator = CocoEvaluator(truth)
    curves = [ClassCurve(1, (0.0,) * 101, (0.0,) * 101, None)] * count
    return RunReport(
        Head("a", "b"), metrics, analyze_errors(evaluator.matched([])), curves, names, num_images=3
    )


@pytest.mark.parametrize(("count", "folded"), [(20, False), (21, True), (1203, True)])
def test_the_table_of_many_classes_is_folded_below_the_best_and_the_worst(count: int, folded: bool) -> None:
    before, opened, complete = run_html(run_of_classes(count)).partition("<details>")
    assert bool(opened) == folded
    assert len(re.findall(r"<td>class_\d+</td>", before)) == 20
    assert len(re.findall(r"<td>class_\d+</td>", complete)) == (count if folded else 0)


def test_the_classes_that_differ_most_surely_come_first_in_a_comparison(study: Study) -> None:
    one = next(iter(study.conditions[0].comparisons["other"].metrics.values()))
    classes = {f"class_{number}": replace(one, p_value=(number % 30) / 30) for number in range(60)}
    shown = clearest_classes(classes)
    assert [*shown] == [f"class_{number}" for number in range(60) if number % 30 < 10]
    assert clearest_classes({"a": one}) == {"a": one}


def test_it_is_one_small_file_without_any_address(page: Path, run_page: Path) -> None:
    for path in (page, run_page):
        text = path.read_text(encoding="utf-8")
        assert len(text) < 10_000_000
        text = text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert re.findall(r"https?://|src=\"(?!data:)|@import|url\(", text) == []


def test_figures_and_galleries_say_of_which_run_they_are(study: Study, changed: list[Changes]) -> None:
    condition = replace(
        study.conditions[0], shown_runs=dict.fromkeys(("regular", "good & new"), "seed 7, one of 2")
    )
    change = replace(changed[0], runs=condition.errors_of)
    text = comparison_html(replace(study, conditions=(condition,)), [change])
    assert len(re.findall(r"<h2.*\(seed 7, one of 2\)</h2>", text)) == 2  # errors and images
    assert len(re.findall(r"<p class=\"quiet\">(solid|dots): .*; seed 7, one of 2</p>", text)) == 2
    assert f"from score {condition.errors['regular'].best_score:.2f}" in text


def test_a_note_of_several_points_stands_once(study: Study) -> None:
    assert comparison_html(study).count("a note") == 1


def test_the_same_study_gives_the_same_file(study: Study, changed: list[Changes], page: Path) -> None:
    assert comparison_html(study, changed) == page.read_text(encoding="utf-8")


def test_names_may_be_anything(study: Study) -> None:
    names = ("</script>", r"US$ 5 \x $", "猫", "n" * 200)
    condition = study.conditions[0]
    comparison, errors = condition.comparisons["good & new"], condition.errors["regular"]
    curve = next(iter(condition.curves["regular"].values())) if condition.curves else None
    odd = replace(
        condition,
        name=names[0],
        baseline=names[1],
        comparisons={names[2]: comparison, names[3]: comparison},
        curves={name: {0: curve} for name in names if curve},
        latencies=None,
        errors=dict.fromkeys(names, errors),
        class_names=names[: len(condition.class_names)],
    )
    html = comparison_html(Study(names[0], (odd, replace(odd, name=names[3]))))
    charts = [
        json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html)
    ]
    assert any(series["name"] == "猫" for chart in charts for series in chart.get("series", ()))
