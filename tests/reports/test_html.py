"""The HTML report, in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.evaluation.coco import CocoEvaluator, CocoMetrics
from detector.evaluation.errors import ErrorAnalysis, analyse_errors
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.replicates import Replicates
from detector.evaluation.statistics import compare, draw
from detector.profiling.latency import Latency
from detector.reports.comparison import clearest_classes
from detector.reports.gallery import Changes, Example
from detector.reports.html import comparison_html, run_html
from detector.reports.run import RunReport
from detector.reports.study import Condition, Curve, Losses, Study
from tests.evaluation.worlds import run_of, world

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def study() -> Study:
    """Two variants and a baseline at two conditions; names that HTML could take for its own."""
    random = np.random.default_rng(0)
    conditions = []
    for name in ("0.5 <b>", "1"):
        truth = world(30, random)
        evaluator = CocoEvaluator(truth)
        results = [run_of(truth, random, skill=skill) for skill in (0.5, 0.9, 0.5)]
        draws = draw([Replicates(evaluator.matched(r).classes) for r in results], num_resamples=30)
        variants = {
            variant: compare(draws, [0], [number], class_names=evaluator.class_names)
            for number, variant in enumerate(("good & new", "other"), start=1)
        }
        curve = Curve((1, 2), (0.1, None), (3.0, 3.0), (5.0, 5.0), (40, 80), (99.0, None))
        curves = {variant: {0: curve} for variant in ("regular", *variants)}
        latencies = {
            variant: [Latency("cpu", size, 123.4, 234.5, 9) for size in (1, 32)] for variant in curves
        }
        errors = {variant: analysed(evaluator, r) for variant, r in zip(curves, results, strict=True)}
        names = evaluator.class_names
        condition = Condition(
            name, "regular", variants, ("a note",), curves, latencies=latencies, errors=errors
        )
        conditions.append(replace(condition, class_names=names))
    return Study("warp <script>", tuple(conditions))


def analysed(evaluator: CocoEvaluator, results: list[dict[str, Any]]) -> ErrorAnalysis:
    return analyse_errors(evaluator.matched(results))


@pytest.fixture(scope="module")
def changes() -> list[Changes]:
    picture = io.BytesIO()
    Image.new("RGB", (40, 30)).save(picture, format="JPEG")
    address = f"data:image/jpeg;base64,{base64.b64encode(picture.getvalue()).decode()}"
    example = Example("a <i>.jpg", {}, [("ground truth", address), ("good & new: F1 0.50", address)])
    return [Changes("1", "regular", "good & new", gained=[example], lost=[])]


@pytest.fixture(scope="module")
def page(study: Study, changes: list[Changes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(comparison_html(study, changes), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run_page(changes: list[Changes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    truth = world(30, random)
    evaluator, results = CocoEvaluator(truth), run_of(truth, random, skill=0.7)
    report = RunReport(
        title="best.ckpt & <data>",
        metrics=evaluator.evaluate(results),
        errors=analysed(evaluator, results),
        class_names=evaluator.class_names,
        num_images=30,
        notes=["stopped <early>"],
        curve=Curve((1, 2), (0.1, None), (3.0, 3.0), (5.0, 5.0), (40, 80), (99.0, None)),
        losses=Losses(
            (1, 2),
            (0.1, 0.01),
            train={"loss": (3.0, 2.0), "loss_cls": (2.0, 1.0)},
            val={"loss": (2.5, None), "loss_cls": (1.5, None)},
        ),
        examples=changes[0].gained,
    )
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text(run_html(report), encoding="utf-8")
    return path


def run_of_classes(count: int) -> RunReport:
    names = [f"class_{number}" for number in range(count)]
    halves: dict[str, Any] = dict.fromkeys(METRIC_NAMES, 0.5)
    metrics = CocoMetrics(halves, dict.fromkeys(names, halves))
    truth = world(3, np.random.default_rng(0))
    evaluator = CocoEvaluator(truth)
    return RunReport("run", metrics, analysed(evaluator, []), names, num_images=3)


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
        assert re.findall(r"https?://|src=\"(?!data:)|@import|url\(", text) == []


def test_the_report_of_a_run_shows_losses_and_learning_rate(run_page: Path) -> None:
    pictures = re.findall('svg.xml;base64,([^"]*)', run_page.read_text(encoding="utf-8"))
    (losses,) = [p for p in (base64.b64decode(data).decode() for data in pictures) if "learning rate" in p]
    assert all(word in losses for word in (">training<", ">validation<", ">loss_cls<"))


def test_figures_and_galleries_say_of_which_run_they_are(study: Study, changes: list[Changes]) -> None:
    condition = replace(
        study.conditions[0], shown_runs=dict.fromkeys(("regular", "good & new"), "seed 7, one of 2")
    )
    change = replace(changes[0], runs=condition.errors_of)
    text = comparison_html(replace(study, conditions=(condition,)), [change])
    assert len(re.findall(r"<h2>.*\(seed 7, one of 2\)</h2>", text)) == 2  # errors and images
    pictures = [base64.b64decode(data).decode() for data in re.findall('svg.xml;base64,([^"]*)', text)]
    of_errors = [p for p in pictures if "score threshold" in p or "found as" in p]
    assert len(of_errors) == 2
    assert all("seed 7, one of 2" in p for p in of_errors)
    score = f"from score {condition.errors['regular'].best_score:.2f}"
    assert score in next(p for p in of_errors if "found as" in p)


def test_the_same_study_gives_the_same_file(study: Study, changes: list[Changes], page: Path) -> None:
    assert comparison_html(study, changes) == page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_names_may_be_anything(study: Study) -> None:
    names = ("$_$", r"US$ 5 \x $", "猫", "n" * 200)
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
    figures = [base64.b64decode(data).decode() for data in re.findall('svg.xml;base64,([^"]*)', html)]
    assert any("猫" in figure for figure in figures)
    assert not any("n" * 60 in figure for figure in figures)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("which", "pictures"), [("page", 10), ("run_page", 6)])
def test_it_loads_whole_and_asks_nobody(
    browser: Any, request: pytest.FixtureRequest, which: str, pictures: int, width: int
) -> None:
    browser.set_window_size(width, 900)
    browser.get_log("performance")
    browser.get(request.getfixturevalue(which).as_uri())
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert requests
    assert {url.partition(":")[0] for url in requests} <= {"file", "data"}
    images = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(images) == pictures
    assert all(images)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_what_is_told_is_there_and_names_stay_text(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    text = browser.execute_script("return document.body.innerText")
    assert browser.title == "warp <script>: comparison"
    assert "0.5 <b>: good & new is better than regular with 1 seed and 30 images: AP" in text
    assert "a note" in text
    assert "image a <i>.jpg" in text
    assert "oLRP" in text
    assert "123.4 / 234.5" in text
    assert browser.execute_script("return document.querySelectorAll('.verdict.better').length") == 2


def test_the_report_of_a_run_tells_its_numbers(browser: Any, run_page: Path) -> None:
    browser.get(run_page.as_uri())
    assert browser.title == "best.ckpt & <data>"
    text = browser.execute_script("return document.body.innerText")
    assert re.search(r"AP 0\.\d{4}, AP50 0\.\d{4}, AP75 0\.\d{4} on 30 images", text)
    assert "Images with the lowest F1" in text


def test_tables_sort_by_a_click(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    column = "const t = [...document.querySelectorAll('table')].find(t => t.innerText.startsWith('metric'));"
    values = f"{column} return [...t.tBodies[0].rows].map(r => parseFloat(r.cells[3].textContent))"
    before = browser.execute_script(values)
    for order in (True, False):
        browser.execute_script(f"{column} t.querySelectorAll('th button')[3].click()")
        assert browser.execute_script(values) == sorted(before, reverse=order)
