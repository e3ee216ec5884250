"""Reports of small problems, and a browser to open them in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import ErrorAnalysis, analyze_errors, class_curves
from detector.evaluation.replicates import Replicates
from detector.evaluation.statistics import compare, draw
from detector.profiling.latency import Latency
from detector.reports.boxes import Boxes
from detector.reports.gallery import Changes, ModelImages, boxed_image, changes, gallery
from detector.reports.html import comparison_html, run_html
from detector.reports.run import Head, RunReport
from detector.reports.study import Condition, Curve, Losses, Study
from tests.evaluation.worlds import run_of, world

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="package")
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
        errors = {variant: analyzed(evaluator, r) for variant, r in zip(curves, results, strict=True)}
        names = evaluator.class_names
        condition = Condition(
            name, "regular", variants, ("a note",), curves, latencies=latencies, errors=errors
        )
        conditions.append(replace(condition, class_names=names))
    return Study("warp <script>", tuple(conditions))


def analyzed(evaluator: CocoEvaluator, results: list[dict[str, Any]]) -> ErrorAnalysis:
    return analyze_errors(evaluator.matched(results))


def read(image_id: Any) -> np.ndarray:
    return np.full((40, 60, 3), 7 * (image_id % 30), dtype=np.uint8)


def named(truth: dict[str, Any]) -> dict[str, Any]:
    """Give the images names that HTML could take for its own."""
    images = [{**image, "file_name": f"{image['id']} <i>.jpg"} for image in truth["images"]]
    return {**truth, "images": images}


@pytest.fixture(scope="package")
def changed() -> list[Changes]:
    random = np.random.default_rng(0)
    truth = named(world(30, random))
    evaluator = CocoEvaluator(truth)
    matched = [evaluator.matched(run_of(truth, random, skill=skill)) for skill in (0.5, 0.9)]
    a, b = (ModelImages.of(one, score=0.4) for one in matched)
    return [changes({"regular": a, "good & new": b}, condition="1", runs="", read=read, count=3)]


@pytest.fixture(scope="package")
def page(study: Study, changed: list[Changes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(comparison_html(study, changed), encoding="utf-8")
    return path


@pytest.fixture(scope="package")
def report() -> RunReport:
    random = np.random.default_rng(0)
    truth = named(world(100, random))
    evaluator, results = CocoEvaluator(truth), run_of(truth, random, skill=0.7)
    for one in results[::9]:
        one["category_id"] = 3 - one["category_id"]
    matched = evaluator.matched(results)
    errors = analyze_errors(matched)
    boxes = Boxes.of_annotations(evaluator.truth.annotations)
    sample = boxed_image(read(9), name="first.jpg")
    return RunReport(
        head=Head("FCOS", "<data> & more", {"device": "a CPU"}, "detector train name='a b'", "seed: 0"),
        metrics=evaluator.evaluate(results),
        errors=errors,
        class_curves=class_curves(matched, errors),
        class_names=evaluator.class_names,
        num_images=100,
        notes=["stopped <early>"],
        curve=Curve((1, 2), (0.1, None), (3.0, 3.0), (5.0, 5.0), (40, 80), (99.0, None), (10, 20)),
        losses=Losses(
            (1, 2),
            (0.1, 0.01),
            train={"loss": (3.0, 2.0), "loss_cls": (2.0, 1.0)},
            val={"loss": (2.5, None), "loss_cls": (1.5, None)},
            steps=(10, 20),
        ),
        gallery=gallery({"": ModelImages.of(matched, score=errors.best_score)}, read=read),
        batches={
            "images": [sample],
            "objects": {"image": [0], "class": [1], "box": [1, 2, 3, 4]},
            "classes": ["a", "b"],
        },
        splits={"training": boxes, "validation": boxes},
    )


@pytest.fixture(scope="package")
def run_page(report: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text(run_html(report), encoding="utf-8")
    return path


@pytest.fixture(scope="package")
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
