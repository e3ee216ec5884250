"""Keypoint metrics are pycocotools' to the last digit, through both engines and from the matches."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from detector.coco.truth_reader import read_ground_truth
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import analyze_errors
from detector.evaluation.keypoints import _notes, keypoint_similarity
from detector.evaluation.outcomes import Objects
from detector.evaluation.result_ids import NamedResults
from tests.evaluation.shapes import SIDE, by_pycocotools, random_poses, require_equal_replicates
from tests.shared import shared_path

BACKENDS = pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])
CROWDPOSE = tuple(
    sigma / 10
    for sigma in (0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79)
)


def values(metrics: Any) -> list[float]:
    return [*metrics.values.values()]


@BACKENDS
def test_published_numbers_of_coco(backend: Any) -> None:
    folder = shared_path("fixtures/eval/keypoints")
    evaluator = CocoEvaluator(folder / "gt.json", backend=backend, task="keypoints")
    assert values(evaluator.evaluate(folder / "dt.json")) == pytest.approx(
        [
            0.504884488449,
            0.722772277228,
            0.633663366337,
            0.466336633663,
            0.750495049505,
            0.518181818182,
            0.727272727273,
            0.636363636364,
            0.466666666667,
            0.75,
        ],
        abs=1e-12,
    )


@BACKENDS
def test_published_numbers_of_crowdpose(backend: Any) -> None:
    """Its files have no areas, and 14 keypoints with sigmas of their own."""
    folder = shared_path("fixtures/eval/crowdpose")
    evaluator = CocoEvaluator(folder / "gt.json", backend=backend, task="keypoints", sigmas=CROWDPOSE)
    metrics = evaluator.evaluate(folder / "dt.json")
    found = [metrics.values[name] for name in ("AP", "AP50", "AP75", "AR")]
    assert found == pytest.approx([0.7877215936, 0.9881188119, 0.7314356436, 0.8222222222], abs=1e-10)
    assert "10 objects without an area are taken for 0.53 of their box, as in CrowdPose." in metrics.notes


@BACKENDS
@pytest.mark.parametrize("seed", range(20))
def test_equals_pycocotools_to_the_last_digit(seed: int, backend: Any) -> None:
    truth, results = random_poses(seed)
    metrics = CocoEvaluator(truth, backend=backend, task="keypoints").evaluate(results)
    assert values(metrics) == by_pycocotools(truth, results, "keypoints").stats.tolist()


@BACKENDS
def test_boxes_of_results_decide_their_size(backend: Any) -> None:
    truth, results = random_poses(3)
    for number, result in enumerate(results):
        result["bbox"] = [0, 0, 20 + number % 90, 20]
    metrics = CocoEvaluator(truth, backend=backend, task="keypoints").evaluate(results)
    assert values(metrics) == by_pycocotools(truth, results, "keypoints").stats.tolist()


@BACKENDS
@pytest.mark.parametrize("count", [1, 5, 9, 14, 21])
def test_any_number_of_keypoints(count: int, backend: Any) -> None:
    truth, results = random_poses(count, keypoints=count)
    sigmas = tuple(np.linspace(0.02, 0.1, count).tolist())
    metrics = CocoEvaluator(truth, backend=backend, task="keypoints", sigmas=sigmas).evaluate(results)
    assert values(metrics) == by_pycocotools(truth, results, "keypoints", sigmas).stats.tolist()
    assert f"{count} keypoints are compared with the sigmas of evaluation.sigmas." in metrics.notes


@BACKENDS
def test_unknown_keypoints_have_equal_sigmas_and_a_note(backend: Any) -> None:
    """hotcoco would take the sigmas of a person's first keypoints."""
    truth, results = random_poses(5, keypoints=5)
    metrics = CocoEvaluator(truth, backend=backend, task="keypoints").evaluate(results)
    assert values(metrics) == by_pycocotools(truth, results, "keypoints", [0.05] * 5).stats.tolist()
    assert "the sigma 0.05 each" in metrics.notes[0]


def test_classes_with_the_same_kind_of_sigmas_share_a_note() -> None:
    described = [((0.05,) * count, "one") for count in (5, 3, 5)] + [((0.1,) * 4, "others")]
    assert _notes(described) == [
        "3 and 5 keypoints are compared with one.",
        "4 keypoints are compared with others.",
    ]


@BACKENDS
def test_classes_of_different_keypoints(backend: Any) -> None:
    """Each class as if it were alone; one without keypoints is left out."""
    truth, results = random_poses(1)
    first = {7: truth["categories"][0]["keypoints"], 2: ["tip", "tail", "eye"]}
    truth["categories"] = [
        {**one, "keypoints": first.get(one["id"], [])} if one["id"] in first else {"id": 5, "name": "box"}
        for one in truth["categories"]
    ]
    for row in (*truth["annotations"], *results):
        row["keypoints"] = row["keypoints"][: 3 * len(first[row["category_id"]])]
        if "num_keypoints" in row:
            row["num_keypoints"] = sum(v > 0 for v in row["keypoints"][2::3])
    evaluator = CocoEvaluator(truth, backend=backend, task="keypoints")
    metrics = evaluator.evaluate(results)
    assert [*metrics.per_class] == ["class 2", "class 7"]
    for id_, sigmas in ((7, None), (2, [0.05] * 3)):
        part = {**truth, "categories": [one for one in truth["categories"] if one["id"] == id_]}
        part["annotations"] = [one for one in truth["annotations"] if one["category_id"] == id_]
        own = [one for one in results if one["category_id"] == id_]
        stats = by_pycocotools(part, own, "keypoints", sigmas).stats
        assert metrics.per_class[f"class {id_}"]["AP"] == stats[0]
    sought = int((~evaluator.truth.ignored).sum())
    missed = (analyze_errors(evaluator.matched(some)).counts["missed"] for some in (results, []))
    assert 0 < next(missed) < next(missed) == sought


def without_keypoints_of_class_2(seed: int) -> tuple[Any, list[dict[str, Any]]]:
    truth, results = random_poses(seed)
    for category in truth["categories"]:
        if category["id"] == 2:
            del category["keypoints"], category["skeleton"]
    for one in truth["annotations"]:
        if one["category_id"] == 2:
            del one["keypoints"], one["num_keypoints"]
    return truth, results


def test_results_of_categories_without_keypoints_are_left_out_with_a_note() -> None:
    truth, results = without_keypoints_of_class_2(1)
    evaluator = CocoEvaluator(truth, task="keypoints")
    own = [one for one in results if one["category_id"] != 2]
    assert 0 < len(own) < len(results)
    with_others, alone = evaluator.evaluate(results), evaluator.evaluate(own)
    assert with_others.values == alone.values
    note = f"{len(results) - len(own)} results are left out, as their categories name no keypoints: class 2."
    assert {*with_others.notes} - {*alone.notes} == {f"results: {note}"}


@pytest.mark.parametrize("named", [False, True])
def test_results_of_such_categories_are_known_by_name(named: bool) -> None:
    """In a file with tables of its own, ids count from elsewhere."""
    truth, results = without_keypoints_of_class_2(1)
    evaluator = CocoEvaluator(truth, task="keypoints")
    own = evaluator.evaluate([one for one in results if one["category_id"] != 2])
    for one in results:
        one["category_name"] = f"class {one['category_id']}"
        if named:
            one["category_id"] = {2: 7, 7: 2}[one["category_id"]]
        else:
            del one["category_id"]
    assert evaluator.evaluate(NamedResults(results) if named else results).values == own.values


def test_boxes_of_categories_without_keypoints_need_no_note() -> None:
    truth, results = without_keypoints_of_class_2(1)
    for one in results:
        if one["category_id"] == 2:
            del one["keypoints"]
    assert not any(
        "left out" in note for note in CocoEvaluator(truth, task="keypoints").evaluate(results).notes
    )


@BACKENDS
def test_masks_of_results_without_boxes_decide_their_size(backend: Any) -> None:
    truth, results = random_poses(3)
    for number, result in enumerate(results):
        pixels = np.zeros((SIDE, SIDE), np.uint8, order="F")
        pixels[: 3 + number % 90, : number % 70] = 1
        mask = mask_tools.encode(pixels)
        result["segmentation"] = {"size": [SIDE, SIDE], "counts": mask["counts"].decode()}
    metrics = CocoEvaluator(truth, backend=backend, task="keypoints").evaluate(results)
    assert values(metrics) == by_pycocotools(truth, results, "keypoints").stats.tolist()
    without = [{**one, "segmentation": None} for one in results]
    assert metrics.values != CocoEvaluator(truth, backend=backend, task="keypoints").evaluate(without).values


@pytest.mark.parametrize("seed", range(5))
def test_matches_give_the_same_metrics(seed: int) -> None:
    truth, results = random_poses(seed)
    assert "AR" in require_equal_replicates(CocoEvaluator(truth, task="keypoints"), results)


def test_similarity_falls_with_the_distance() -> None:
    points = np.array([[10.0, 10, 2], [0, 0, 0]])
    xy = np.array([[[10.0, 10], [99, 99]], [[12, 10], [99, 99]]])
    found = keypoint_similarity(xy, points, box_xywh=np.zeros(4), area=100.0, sigmas=np.array([0.1, 0.1]))
    assert found == pytest.approx([1.0, np.exp(-4 / (2 * 100 * 0.2**2))])


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        ([1, 2, 3], 'keypoints has 3 numbers, but "class 2" has 17 keypoints: expected 51'),
        (["a"] * 51, "is no list of finite numbers"),
        (None, "is no list of finite numbers"),
    ],
)
def test_bad_keypoints_of_results_are_named(keypoints: Any, message: str) -> None:
    truth, results = random_poses(0)
    where = next(number for number, one in enumerate(results) if one["category_id"] == 2)
    results[where] = {**results[where], "keypoints": keypoints}
    with pytest.raises(ValueError, match=r"1 of .* results have no valid keypoints") as error:
        CocoEvaluator(truth, task="keypoints").evaluate(results)
    assert f"The first is number {where} (counted from 0)" in str(error.value)
    assert message in str(error.value)


def test_sigmas_of_another_number_are_refused() -> None:
    truth, _ = random_poses(0)
    with pytest.raises(ValueError, match=r"evaluation.sigmas has 3 numbers.*\"class 2\" has 17"):
        CocoEvaluator(truth, task="keypoints", sigmas=(0.1, 0.1, 0.1))


def test_a_truth_without_keypoints_is_refused() -> None:
    truth, _ = random_poses(0)
    for category in truth["categories"]:
        del category["keypoints"]
    for one in truth["annotations"]:
        del one["keypoints"]
    with pytest.raises(ValueError, match="no category names its keypoints"):
        CocoEvaluator(truth, task="keypoints")


def test_objects_without_labeled_points_need_not_be_found() -> None:
    truth, results = random_poses(0)
    evaluator = CocoEvaluator(truth, task="keypoints")
    objects = Objects.of(evaluator.matched(results))
    unlabeled = [not any(one["keypoints"][2::3]) for one in truth["annotations"]]
    assert any(unlabeled)
    assert objects.ignored.sum() > objects.crowd.sum()
    assert objects.ignored.sum() == evaluator.truth.ignored.sum()


@BACKENDS
def test_the_sigmas_of_a_training_decide_unless_those_of_the_evaluation_do(backend: Any) -> None:
    truth, results = random_poses(3, keypoints=5)
    of_all = read_ground_truth(truth, tasks=("keypoints",))
    ids = [one["id"] for one in truth["images"]]
    of_training = replace(of_all, sigmas=((0.02,) * 5, (0.1,) * 5, (0.3,) * 5)).of_images(ids)
    trained = CocoEvaluator(of_training, task="keypoints", backend=backend)
    assert trained.notes == ("5 keypoints are compared with the sigmas of data.keypoint_sigmas.",)
    for class_name, sigma in (("class 2", 0.02), ("class 7", 0.3)):
        alone = CocoEvaluator(truth, task="keypoints", sigmas=(sigma,) * 5)
        assert (
            trained.evaluate(results).per_class[class_name] == alone.evaluate(results).per_class[class_name]
        )
    set_again = CocoEvaluator(of_training, task="keypoints", sigmas=(0.3,) * 5)
    assert values(set_again.evaluate(results)) == values(alone.evaluate(results))
    assert values(trained.evaluate(results)) != values(alone.evaluate(results))
