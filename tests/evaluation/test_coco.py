"""The metrics are pycocotools', and its traps are closed."""

import contextlib
import copy
import io
import json
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco import CocoEvaluator, CocoMetrics
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.result_files import read_results
from tests.evaluation.problems import (
    annotation,
    crowded_problem,
    ground_truth,
    perfect_results,
    random_problem,
)
from tests.shared import shared_path

BACKENDS = pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])


def raw_pycocotools(
    truth: dict[str, Any], results: list[dict[str, Any]], category: Any = None
) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **copy.deepcopy(truth)}
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        if category is not None:
            run.params.catIds = [category]
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(v) for v in run.stats]


def twelve(metrics: CocoMetrics) -> list[float]:
    return [getattr(metrics, name) for name in METRIC_NAMES]


@pytest.mark.parametrize(
    ("name", "truth_file", "results_file"),
    [
        ("coco100", "coco100/gt.json", "coco100/dt_bbox.json"),
        ("sahi", "sahi/gt.json", "sahi/dt.json"),
        ("fce", "fce/gt_dataset.json", "fce/dt_dataset.json"),
    ],
)
@BACKENDS
def test_published_numbers(name: str, truth_file: str, results_file: str, backend: Any) -> None:
    folder = shared_path("fixtures/eval")
    published = json.loads((folder / "pycocotools_values.json").read_text())[f"{name}/bbox"]
    evaluator = CocoEvaluator(folder / truth_file, backend=backend)
    metrics = evaluator.evaluate(read_results(folder / results_file))
    assert dict(zip(METRIC_NAMES, twelve(metrics), strict=True)) == pytest.approx(published, abs=1e-9, rel=0)


@BACKENDS
@pytest.mark.parametrize("seed", range(8))
def test_equals_pycocotools_to_the_last_digit(seed: int, backend: Any) -> None:
    truth, results = random_problem(seed)
    assert twelve(CocoEvaluator(truth, backend=backend).evaluate(results)) == raw_pycocotools(truth, results)


@pytest.mark.parametrize("seed", range(100, 200))
@pytest.mark.parametrize("make", [random_problem, crowded_problem])
def test_backends_are_equal(seed: int, make: Any) -> None:
    truth, results = make(seed)
    first, second = (CocoEvaluator(truth, backend=b).evaluate(results) for b in ("pycocotools", "hotcoco"))
    assert first == second


@BACKENDS
def test_neither_backend_needs_a_detection_or_an_object(backend: Any) -> None:
    truth, results = random_problem(0)
    metrics = CocoEvaluator(truth, backend=backend).evaluate([])
    assert (metrics.AP, metrics.AR100) == (0.0, 0.0)
    metrics = CocoEvaluator({**truth, "annotations": []}, backend=backend).evaluate(results)
    assert (metrics.AP, metrics.AR100) == (-1.0, -1.0)


def test_per_class_equals_pycocotools_on_that_class_alone() -> None:
    truth, results = random_problem(3)
    per_class = CocoEvaluator(truth).evaluate(results).per_class
    assert [list(per_class[f"class {i}"].values()) for i in (2, 5, 7)] == [
        pytest.approx(raw_pycocotools(truth, results, category=i), abs=1e-12) for i in (2, 5, 7)
    ]


def test_inputs_are_not_changed() -> None:
    truth, results = random_problem(1)
    before = copy.deepcopy((truth, results))
    CocoEvaluator(truth).evaluate(results)
    assert (truth, results) == before


def test_an_evaluator_can_be_used_again() -> None:
    truth, results = random_problem(2)
    evaluator = CocoEvaluator(truth)
    first = evaluator.evaluate(results)
    evaluator.evaluate([])
    assert evaluator.evaluate(results) == first


def test_pycocotools_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    CocoEvaluator(ground_truth()).evaluate(perfect_results(ground_truth()))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("ids", [(0, 1, 2), (5, 5, 5), ("x", None, 1.5)])
def test_annotation_ids_have_no_effect(ids: tuple[Any, ...]) -> None:
    truth = ground_truth()
    for entry, id_ in zip(truth["annotations"], ids, strict=True):
        entry["id"] = id_
    assert CocoEvaluator(truth).evaluate(perfect_results(truth)).to_dict()["AP"] == pytest.approx(1.0)


def test_missing_annotation_ids_have_no_effect() -> None:
    truth = ground_truth()
    for entry in truth["annotations"]:
        del entry["id"]
    assert CocoEvaluator(truth).evaluate(perfect_results(truth)).to_dict()["AP"] == pytest.approx(1.0)


def test_missing_area_is_the_area_of_the_box() -> None:
    truth, results = random_problem(4)
    without = copy.deepcopy(truth)
    for entry in without["annotations"]:
        del entry["area"]
    assert CocoEvaluator(without).evaluate(results) == CocoEvaluator(truth).evaluate(results)


def test_missing_iscrowd_is_no_crowd() -> None:
    truth = ground_truth()
    for entry in truth["annotations"]:
        del entry["iscrowd"]
    assert CocoEvaluator(truth).evaluate(perfect_results(truth)).to_dict()["AP"] == pytest.approx(1.0)


def test_detections_in_a_crowd_do_not_count() -> None:
    truth = ground_truth()
    truth["annotations"].append(annotation(4, 20, 3, [0.0, 0.0, 90.0, 25.0], iscrowd=1))
    inside = {"image_id": 20, "category_id": 3, "bbox": [10.0, 5.0, 9.0, 9.0], "score": 0.99}
    assert CocoEvaluator(truth).evaluate([inside, *perfect_results(truth)]).to_dict()["AP"] == pytest.approx(
        1.0
    )


@pytest.mark.parametrize("image_ids", [("a", "b"), (0, -4), (2**62, 7)])
def test_image_ids_may_be_texts_and_any_integers(image_ids: tuple[Any, Any]) -> None:
    text = json.dumps(ground_truth())
    truth = json.loads(
        text, parse_int=lambda s: dict(zip(("10", "20"), image_ids, strict=True)).get(s, int(s))
    )
    metrics = CocoEvaluator(truth).evaluate(perfect_results(truth))
    assert metrics.to_dict()["AP"] == pytest.approx(1.0)
    assert metrics.to_dict()["AR1"] == pytest.approx(1.0)


def test_no_detections_give_zeros() -> None:
    metrics = CocoEvaluator(ground_truth()).evaluate([])
    assert twelve(metrics) == [0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, -1]  # there is no large object


def test_what_has_no_ground_truth_is_undefined() -> None:
    truth = ground_truth(annotations=[])
    rows = [{"image_id": 10, "category_id": 1, "bbox": [1.0, 1.0, 5.0, 5.0], "score": 0.5}]
    assert twelve(CocoEvaluator(truth).evaluate(rows)) == [-1.0] * 12


def test_order_of_rows_has_no_effect_between_images_and_scores() -> None:
    truth, results = random_problem(5)
    by_score = sorted(results, key=lambda r: r["score"])
    by_image = sorted(results, key=lambda r: (str(r["image_id"]), -r["score"]))
    assert CocoEvaluator(truth).evaluate(by_score) == CocoEvaluator(truth).evaluate(by_image)


def test_equal_scores_of_one_image_and_class_rank_as_given() -> None:
    truth = ground_truth()
    hit = {"image_id": 10, "category_id": 3, "bbox": [40.0, 10.0, 40.0, 40.0], "score": 0.5}
    miss = {**hit, "bbox": [0.0, 0.0, 9.0, 9.0]}
    evaluator = CocoEvaluator(truth)
    assert evaluator.evaluate([hit, miss]).per_class["dog"]["AP"] == pytest.approx(1.0)
    assert evaluator.evaluate([miss, hit]).per_class["dog"]["AP"] == pytest.approx(0.5)


def test_metrics_are_plain_json() -> None:
    truth, results = random_problem(6)
    metrics = CocoEvaluator(truth).evaluate(results).to_dict()
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert [*metrics] == [*METRIC_NAMES, "per_class", "notes"]


def test_classes_that_share_a_name_stay_apart() -> None:
    truth = ground_truth(categories=[{"id": 1, "name": "cat"}, {"id": 3, "name": "cat"}])
    assert [*CocoEvaluator(truth).evaluate([]).per_class] == ["cat (id 1)", "cat (id 3)"]
