"""The images of a report: which are shown, and the columns that the page draws."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import Matched
from detector.reports import gallery as module
from detector.reports.gallery import ModelImages, changes, gallery, label_suspects, most_changed
from tests.evaluation.problems import ground_truth, perfect_results
from tests.evaluation.worlds import run_of, world


def read(image_id: Any) -> np.ndarray:
    return np.full((80, 100, 3), 128, dtype=np.uint8)


def matched(results: list[dict[str, Any]]) -> Matched:
    return CocoEvaluator(ground_truth()).matched(results)


def detection(image_id: int, category_id: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def test_the_greatest_changes_come_first_and_no_change_is_none() -> None:
    before = np.array([0.5, 0.5, 0.5, 0.5, 0.4])
    after = np.array([0.6, 0.9, 0.5, 0.1, 0.3])
    assert most_changed(before, after, count=3) == ([1, 0], [3, 4])
    assert most_changed(before, after, count=1) == ([1], [3])


def test_columns_hold_objects_detections_and_thumbnails() -> None:
    results = perfect_results(ground_truth())
    shown = gallery({"": ModelImages.of(matched(results), score=0.5)}, read=read)
    assert {image["name"] for image in shown["images"]} == {"a.jpg", "b.jpg"}
    assert [(image["width"], image["height"]) for image in shown["images"]] == [(100, 80)] * 2
    kind, _, data = shown["images"][0]["thumb"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (100, 80)
    (model,) = shown["models"]
    for columns in (shown["objects"], model):
        place = [image["name"] for image in shown["images"]].index("a.jpg")
        first = columns["image"].index(place)
        assert columns["box"][4 * first : 4 * first + 4] == [5.0, 5.0, 20.0, 20.0]
    assert model["kind"] == [0, 0, 0]
    assert [shown["objects"]["class"][i] for i in model["object"]] == model["class"]
    assert (model["threshold"], shown["floor"]) == (0.5, 0.05)


def test_without_images_boxes_are_shown_alone() -> None:
    truth = ground_truth(images=[{"id": 10, "file_name": ""}, {"id": 20}])
    model = ModelImages.of(CocoEvaluator(truth).matched([]), score=0.5)
    shown = {image["name"]: image for image in gallery({"": model}, read=None)["images"]}
    assert shown["10"] == {"name": "10", "width": 80.0, "height": 50.0, "thumb": None}


def test_thumbnails_stay_within_the_budget_and_the_worst_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    truth = world(200, random)
    model = ModelImages.of(CocoEvaluator(truth).matched(run_of(truth, random)), score=0.5)
    one = len(module._address(read(0), 200))
    monkeypatch.setattr(module, "_BUDGET_BYTES", 50 * one)
    monkeypatch.setattr(module, "_SUSPECTS", 2)
    shown = gallery({"": model}, read=read)
    assert len(shown["images"]) == 50
    assert shown["num_images"] == 200
    worst = {str(i) for i in np.argsort(model.image_f1, kind="stable")[:20]}
    assert worst <= {image["name"] for image in shown["images"]}
    assert max(shown["objects"]["image"]) < 50


def test_too_many_detections_raise_the_lowest_score(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    truth = world(30, random)
    model = ModelImages.of(CocoEvaluator(truth).matched(run_of(truth, random)), score=0.5)
    monkeypatch.setattr(module, "_DETECTIONS", 20)
    shown = gallery({"": model}, read=None)
    assert 20 <= len(shown["models"][0]["score"]) <= 22
    assert shown["floor"] == pytest.approx(min(shown["models"][0]["score"]), abs=1e-3)


def test_likely_label_errors_are_told_apart() -> None:
    results = [
        detection(10, 1, [5.0, 5.0, 20.0, 20.0], 0.9),  # right
        detection(10, 1, [40.0, 10.0, 40.0, 40.0], 0.8),  # a dog, labeled so
        detection(20, 3, [0.0, 0.0, 10.0, 10.0], 0.7),  # nothing there
        detection(20, 3, [0.0, 60.0, 10.0, 10.0], 0.4),  # nothing either, but unsure
    ]
    model = ModelImages.of(matched(results), score=0.5)
    suspects = label_suspects(model)
    scores = model.outcomes.rows.scores
    assert scores[suspects["unboxed"]].tolist() == [0.7]
    assert scores[suspects["renamed"]].tolist() == [0.8]
    assert suspects["unfound"].tolist() == [2]
    shown = gallery({"": model}, read=None)
    (object_place,), (row,) = shown["suspects"]["unfound"], shown["suspects"]["renamed"]
    assert shown["objects"]["box"][4 * object_place] == 30.0
    assert shown["models"][0]["score"][row] == 0.8


def test_changes_show_both_models() -> None:
    truth = ground_truth()
    before, after = (
        ModelImages.of(matched([]), score=0.5),
        ModelImages.of(matched(perfect_results(truth)), score=0.5),
    )
    change = changes({"a": before, "b": after}, condition="", runs="", read=read, count=1)
    assert [(one.image, one.f1) for one in change.gained] == [("10", {"a": 0.0, "b": 1.0})]
    assert change.lost == []
    assert change.gallery is not None
    assert [model["name"] for model in change.gallery["models"]] == ["a", "b"]
    assert [image["name"] for image in change.gallery["images"]] == ["a.jpg"]
    same = changes({"a": before, "b": replace(before)}, condition="", runs="", read=read, count=1)
    assert same.gallery is None
