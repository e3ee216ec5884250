"""Masks and keypoints in the columns of a gallery, and in its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from detector.coco.truth_reader import read_ground_truth
from detector.evaluation.coco import CocoEvaluator
from detector.reports import shapes as module
from detector.reports.gallery import ModelImages, changes, gallery
from detector.reports.html import run_html
from detector.reports.run import RunReport

SIZE = (80, 100)
PERSON, DOG = 4, 9


def problem() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A person and a dog in each of two images, found in the second alone; people have three keypoints."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in (1, 2)]
    categories: list[dict[str, Any]] = [{"id": DOG, "name": "dog"}, {"id": PERSON, "name": "person"}]
    categories[1] |= {"keypoints": ["head", "hip", "foot"], "skeleton": [[1, 2], [2, 3], [3, 9]]}
    annotations: list[dict[str, Any]] = []
    for image in (1, 2):
        for category, x in ((PERSON, 10), (DOG, 50)):
            polygon = [x, 10, x + 20, 10, x + 20, 40, x, 40]
            one: dict[str, Any] = {"id": len(annotations) + 1, "image_id": image, "category_id": category}
            one |= {"bbox": [x, 10, 20, 30], "area": 600, "segmentation": [polygon]}
            if category == PERSON:
                one |= {"keypoints": [20, 12, 2, 20, 25, 1, 0, 0, 0], "num_keypoints": 2}
            annotations.append(one)
    results = [found(2, DOG, 52, 0.6), found(2, PERSON, 11, 0.9), found(2, DOG, 0, 0.1)]
    results[1]["keypoints"] = [21.26, 13, 7.5, 21, 26, 3.0, 21, 39, -0.5]
    return {"images": images, "categories": categories, "annotations": annotations}, results


def found(image: int, category: int, x: int, score: float) -> dict[str, Any]:
    """A detection of a rectangle with a hole."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[12:40, x : x + 20] = 1
    mask[20:30, x + 5 : x + 15] = 0
    run_lengths = {"size": [*SIZE], "counts": mask_tools.encode(mask)["counts"].decode()}
    one = {"image_id": image, "category_id": category, "score": score, "bbox": [x, 12, 20, 28]}
    return {**one, "segmentation": run_lengths}


def model(task: Any, *others: Any, change: Any = None) -> ModelImages:
    """The detections of a task, with which the shapes of others are drawn, too."""
    content, results = problem()
    truth = read_ground_truth(content, tasks=("segm", "keypoints"))
    tasks = []
    for other in others:
        evaluator = CocoEvaluator(truth, task=other)
        tasks.append((evaluator.rows(results), evaluator.truth))
    matched = CocoEvaluator(truth, task=task).matched(results if change is None else change(results))
    return ModelImages.of(matched, score=0.5, tasks=tasks)


@pytest.mark.parametrize(("task", "others"), [("segm", ()), ("bbox", ("segm", "keypoints"))])
def test_outlines_are_those_of_their_detections_and_objects(task: Any, others: Any) -> None:
    columns = gallery({"": model(task, *others)}, read=None)
    (detections,), objects = columns["models"], columns["objects"]
    by_score = dict(zip(detections["score"], detections["outline"], strict=True))
    assert by_score == {
        score: f"M{x} 12l0 28 20 0 0-28zM{x + 5} 20l10 0 0 10-10 0z"
        for score, x in ((0.9, 11), (0.6, 52), (0.1, 0))
    }
    assert detections["plain_below"] == 0
    for number, outline in enumerate(objects["outline"]):
        x = round(objects["box"][4 * number])
        assert outline == f"M{x} 10l0 30 20 0 0-30z"


@pytest.mark.parametrize(("task", "others"), [("keypoints", ()), ("bbox", ("segm", "keypoints"))])
def test_joints_are_those_of_the_classes_that_have_some(task: Any, others: Any) -> None:
    columns = gallery({"": model(task, *others)}, read=None)
    (detections,), objects = columns["models"], columns["objects"]
    joints = dict(zip(detections["score"], detections["joints"], strict=True))
    assert joints.pop(0.9) == "21.3,13 21,26 -"  # the last has a score below 0
    assert set(joints.values()) <= {""}
    names = [columns["classes"][label] for label in objects["class"]]
    assert {*zip(names, objects["joints"], strict=True)} - {("dog", "")} == {("person", "20,12 20,25 -")}
    bones = dict(zip(columns["classes"], columns["bones"], strict=True))
    assert bones.pop("person") == [(0, 1), (1, 2)]  # the pair that names no keypoint is left out
    assert [*bones.values()] in ([], [[]])


def test_shapes_of_other_detections_are_not_drawn() -> None:
    columns = gallery({"": model("bbox", "segm", change=lambda results: results[:2])}, read=None)
    assert "outline" not in columns["models"][0]


def test_boxes_alone_have_no_columns_of_shapes() -> None:
    columns = gallery({"": model("bbox")}, read=None)
    assert columns["bones"] == []
    assert not {"outline", "joints", "plain_below"} & columns["models"][0].keys()


def test_low_scores_have_their_boxes_alone_beyond_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUDGET_BYTES", 60)
    (detections,) = gallery({"": model("segm")}, read=None)["models"]
    outlines = dict(zip(detections["score"], detections["outline"], strict=True))
    assert [bool(outlines[score]) for score in (0.9, 0.6, 0.1)] == [True, True, False]
    assert detections["plain_below"] == 0.1


def test_a_comparison_draws_both_models() -> None:
    models = {"a": model("segm", change=lambda results: results[:0]), "b": model("segm")}
    change = changes(models, condition="", runs="", read=lambda _: np.zeros((*SIZE, 3), np.uint8), count=1)
    assert change.gallery is not None
    a, b = change.gallery["models"]
    assert (a["outline"], len(b["outline"])) == ([], 3)


def test_page_draws_outlines_tints_and_joints(report: RunReport, browser: Any, tmp_path: Path) -> None:
    shown = gallery({"": model("bbox", "segm", "keypoints")}, read=None)
    page = tmp_path / "report.html"
    page.write_text(run_html(replace(report, gallery=shown)), encoding="utf-8")
    browser.get(page.as_uri())
    browser.execute_script("document.querySelector('[data-gallery] .shot').click()")
    next_image = "new KeyboardEvent('keydown', {key: 'ArrowRight'})"
    for _ in range(2):  # one of the images has detections
        browser.execute_script(f"document.querySelector('dialog').dispatchEvent({next_image})")
        paths = {
            name: browser.execute_script(
                f"return [...document.querySelectorAll('dialog .{name}:not(.halo)')]"
                ".map(path => path.getAttribute('d'))"
            )
            for name in ("tint.right", "edge.right", "thin.right", "bone.right", "dot.right")
        }
        if paths["tint.right"]:
            break
    assert "M11 12l0 28 20 0 0-28z" in paths["edge.right"][0]
    assert paths["tint.right"] == paths["edge.right"]
    assert "M11 12h20v28h-20z" in paths["thin.right"][0]
    assert paths["bone.right"] == ["M21.3,13L21,26"]
    assert paths["dot.right"] == ["M21.3,13h0M21,26h0"]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
