"""Class, size and place of boxes."""

from __future__ import annotations

import numpy as np

from detector.evaluation.coco import CocoEvaluator
from detector.reports.boxes import Boxes, split_charts
from tests.evaluation.problems import annotation, ground_truth


def boxes() -> Boxes:
    truth = ground_truth()
    truth["annotations"].append(annotation(4, 20, 3, [0.0, 0.0, 90.0, 70.0], iscrowd=1))
    return Boxes.of_annotations(CocoEvaluator(truth).truth.annotations)


def test_statistics_are_those_of_the_boxes_without_crowds() -> None:
    charts = {
        title: (spec, about) for title, spec, about in split_charts({"validation": boxes()}, ["cat", "dog"])
    }
    (classes,) = charts["Objects by class"][0]["series"]
    assert charts["Objects by class"][0]["x"]["names"] == ["cat", "dog"]
    assert classes["text"] == ["2 (66.7%)", "1 (33.3%)"]
    sizes, about = charts["Objects by size"]
    assert sizes["x"]["names"] == ["16", "23", "32"]
    assert sizes["series"][0]["text"] == ["1 (33.3%)", "1 (33.3%)", "1 (33.3%)"]  # sides 20, 25, 40
    assert about == "validation: 67% small (below 32 px), 0% large (above 96 px)"
    (counts,) = charts["Objects in an image"][0]["series"]
    assert counts["y"] == [0.0, 0.5, 0.5]
    (places,) = charts["Places of objects"][0]["maps"]
    cells = np.array(places["cells"])
    assert cells.sum() == 3
    assert cells[3, 2] == 1  # the center (15, 15) of 100 x 80, in 16 x 16 cells


def test_splits_stand_side_by_side() -> None:
    charts = split_charts({"training": boxes(), "validation": boxes()}, ["cat", "dog"])
    assert [s["name"] for s in charts[0][1]["series"]] == ["training", "validation"]


def test_nothing_is_drawn_without_objects() -> None:
    truth = CocoEvaluator(ground_truth(annotations=[])).truth
    assert split_charts({"validation": Boxes.of_annotations(truth.annotations)}, ["cat", "dog"]) == []


def test_many_classes_are_shown_by_the_most_and_the_least_frequent() -> None:
    few = boxes()
    (title, spec, _), *_ = split_charts({"validation": few}, [f"class {i}" for i in range(100)])
    assert (title, len(spec["x"]["names"])) == ("Objects by class", 40)
