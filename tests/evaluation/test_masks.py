"""Mask metrics are pycocotools' to the last digit, through both engines and from the matches."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from detector.coco.truth_reader import read_ground_truth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import KINDS, analyze_errors
from detector.evaluation.masks import areas_of
from detector.evaluation.outcomes import OUTCOMES, RIGHT, outcomes
from tests.evaluation.shapes import SIDE, by_pycocotools, random_masks, require_equal_replicates
from tests.shared import shared_path

BACKENDS = pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])


@BACKENDS
def test_published_numbers(backend: Any) -> None:
    folder = shared_path("fixtures/eval/coco100")
    metrics = CocoEvaluator(folder / "gt.json", backend=backend, task="segm").evaluate(
        folder / "dt_segm.json"
    )
    shown = [round(value, 3) for value in metrics.values.values()]
    assert shown == [0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381]


@BACKENDS
@pytest.mark.parametrize("seed", range(20))
def test_equals_pycocotools_to_the_last_digit(seed: int, backend: Any) -> None:
    truth, results = random_masks(seed)
    metrics = CocoEvaluator(truth, backend=backend, task="segm").evaluate(results)
    assert [*metrics.values.values()] == by_pycocotools(truth, results, "segm").stats.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_matches_give_the_same_metrics(seed: int) -> None:
    truth, results = random_masks(seed)
    require_equal_replicates(CocoEvaluator(truth, task="segm"), results)


@pytest.mark.parametrize("seed", range(5))
def test_kinds_of_errors_are_those_that_tide_counts(seed: int) -> None:
    truth, results = random_masks(seed)
    matched = CocoEvaluator(truth, task="segm").matched(results)
    kinds = outcomes(matched).kinds
    counts = analyze_errors(matched).counts
    own = {name: int((kinds == place).sum()) for place, name in enumerate(OUTCOMES) if place != RIGHT}
    assert own == {kind: counts[kind] for kind in KINDS if kind != "missed"}


def test_the_mask_decides_the_size_whether_or_not_there_is_a_box() -> None:
    """pycocotools would take the area of the box."""
    truth, results = random_masks(3)
    evaluator = CocoEvaluator(truth, task="segm")
    boxed = [{**result, "bbox": [0, 0, SIDE, SIDE]} for result in results]
    assert evaluator.evaluate(boxed) == evaluator.evaluate(results)


def test_polygons_are_read_as_results() -> None:
    truth, _ = random_masks(1)
    objects = [one for one in truth["annotations"] if isinstance(one["segmentation"], list)]
    truth["annotations"] = objects
    results = [
        {key: one[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 1.0}
        for one in objects
    ]
    assert pytest.approx(1.0) == CocoEvaluator(truth, task="segm").evaluate(results).AP


def test_real_annotations_are_found_by_themselves() -> None:
    path = shared_path("data/coco_cc/val.json")
    truth = json.loads(Path(path).read_text())
    evaluator = CocoEvaluator(path, backend="hotcoco", task="segm")
    results = [
        {key: one[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 1.0}
        for one in truth["annotations"]
        if not one["iscrowd"]
    ]
    assert evaluator.evaluate(results).AP == 1.0


def test_no_results_give_zeros() -> None:
    truth, _ = random_masks(0)
    assert CocoEvaluator(truth, task="segm").evaluate([]).AP == 0.0


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 4], "counts": [20]}, "the size of its run lengths is not the [120, 120] of its image"),
        ({"size": [SIDE, SIDE], "counts": [20, 4]}, "do not add up to height x width"),
        ({"size": [SIDE, SIDE], "counts": "13"}, "do not add up to height x width"),
        ([], "its segmentation is empty"),
        ([[1, 2, 3, 4]], "the four numbers [1, 2, 3, 4]"),
        ("mask", "neither a list of polygons nor run lengths"),
    ],
)
def test_bad_masks_of_results_are_named(segmentation: Any, message: str) -> None:
    truth, results = random_masks(0)
    results[2] = {**results[2], "segmentation": segmentation}
    with pytest.raises(ValueError, match="results have no valid mask") as error:
        CocoEvaluator(truth, task="segm").evaluate(results, source="dt.json")
    assert f"1 of {len(results)} results" in str(error.value)
    assert f"number 2 (counted from 0), of image {results[2]['image_id']}" in str(error.value)
    assert message in str(error.value)


def test_an_empty_mask_of_a_result_counts_as_wrong() -> None:
    truth, results = random_masks(0)
    empty = mask.encode(np.zeros((SIDE, SIDE), np.uint8, order="F"))["counts"].decode()
    results.append({**results[0], "segmentation": {"size": [SIDE, SIDE], "counts": empty}, "score": 1})
    metrics = CocoEvaluator(truth, task="segm").evaluate(results)
    assert [*metrics.values.values()] == by_pycocotools(truth, results, "segm").stats.tolist()


def test_a_result_without_a_mask_is_refused() -> None:
    truth, results = random_masks(0)
    del results[1]["segmentation"]
    with pytest.raises(ValueError, match=r"has no segmentation \(only masks with a score are evaluated\)"):
        CocoEvaluator(truth, task="segm").evaluate(results)


def test_objects_without_a_mask_are_named() -> None:
    truth, _ = random_masks(0)
    truth["annotations"][4]["segmentation"] = []
    with pytest.raises(ValueError, match=r"1 of 21 annotations have no mask .* annotation 5 of image"):
        CocoEvaluator(truth, task="segm")


@BACKENDS
def test_objects_without_a_mask_in_a_training_are_regions_in_which_no_mask_counts(backend: Any) -> None:
    truth, results = random_masks(0)
    row = next(row for row, one in enumerate(truth["annotations"]) if not one["iscrowd"])
    unmasked = truth["annotations"][row]
    far = [one for one in results if one["image_id"] != unmasked["image_id"]]
    box = mask.frPyObjects(np.array([unmasked["bbox"]]), SIDE, SIDE)[0]
    on_it = {
        **{key: unmasked[key] for key in ("image_id", "category_id")},
        "segmentation": {"size": [SIDE, SIDE], "counts": box["counts"].decode()},
        "score": 1.0,
    }
    without = {**truth, "annotations": [one for one in truth["annotations"] if one is not unmasked]}
    expected = CocoEvaluator(without, task="segm").evaluate(far)
    unmasked["segmentation"] = []
    ground_truth = replace(read_ground_truth(truth, tasks=("segm",)), ignore_unmasked=True)
    evaluator = CocoEvaluator(ground_truth, task="segm", backend=backend)
    assert evaluator.evaluate([*far, on_it]).values == expected.values
    assert evaluator.notes == (
        "1 of 21 annotations have no mask: their boxes are ignored regions, as crowds are, in which no mask "
        "counts.",
    )
    require_equal_replicates(evaluator, [*results, on_it])


def test_areas_of_more_masks_than_pycocotools_takes_at_once() -> None:
    masks = [mask.encode(np.asfortranarray(np.ones((1, width), np.uint8))) for width in range(1, 601)]
    assert areas_of(np.array(masks, dtype=object)).tolist() == [*range(1, 601)]
    assert areas_of(np.array([], dtype=object)).tolist() == []
