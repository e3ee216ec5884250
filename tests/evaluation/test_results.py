"""Results keep what the model said, and a results file that would be misread is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools import mask as mask_tools

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.result_files import read_results
from detector.evaluation.results import (
    ResultCollector,
    detections_to_results,
    write_predictions,
)
from detector.files import write_json
from detector.structures import Batch, BoxMasks, Detections, Keypoints, Targets
from tests.evaluation.problems import ground_truth, perfect_results, random_problem


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def batch(indices: list[int], *, resized: tuple[int, int], original: tuple[int, int]) -> Batch:
    n = len(indices)
    return Batch(
        images=torch.zeros(n, 3, 8, 8, dtype=torch.uint8),
        image_sizes=torch.tensor([resized] * n),
        original_sizes=torch.tensor([original] * n),
        indices=torch.tensor(indices),
        targets=Targets(
            torch.zeros(n, 0, 4), torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0, dtype=torch.bool)
        ),
    )


def test_boxes_become_xywh_and_labels_original_ids() -> None:
    some = detections([[1, 2, 11, 22], [0, 0, 4, 4]], [0.75, 0.5], [1, 0])
    assert detections_to_results(some, image_id="img", category_ids=(7, 90)) == [
        {"image_id": "img", "category_id": 90, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.75},
        {"image_id": "img", "category_id": 7, "bbox": [0.0, 0.0, 4.0, 4.0], "score": 0.5},
    ]


def test_rounding_keeps_two_decimals_of_boxes_and_six_of_scores() -> None:
    some = detections([[1.23456, 2.34567, 10.98765, 20.45678]], [0.123456789], [0])
    (result,) = detections_to_results(some, image_id=1, category_ids=(1,))
    assert result["bbox"] == pytest.approx([1.23456, 2.34567, 9.75309, 18.11111], abs=0.005)
    assert result["score"] == pytest.approx(0.123456789, abs=5e-7)
    assert len(str(result["bbox"][0])) <= len("1.2346")


def test_no_detections_give_no_results() -> None:
    assert detections_to_results(detections([], [], []), image_id=1, category_ids=(1,)) == []


def test_collector_scales_to_the_original_image() -> None:
    collector = ResultCollector(image_id=lambda index: f"id{index}", category_ids=(5,))
    collector.add(
        batch([3], resized=(40, 50), original=(80, 200)), [detections([[5, 10, 25, 30]], [0.5], [0])]
    )
    assert collector.results() == [
        {"image_id": "id3", "category_id": 5, "bbox": [20.0, 20.0, 80.0, 40.0], "score": 0.5}
    ]


def test_collector_pastes_masks_and_scales_keypoints_to_the_original_image() -> None:
    collector = ResultCollector(image_id=lambda index: index, category_ids=(5, 6), num_keypoints=(2, 0))
    some = replace(
        detections([[5, 10, 25, 30], [5, 10, 25, 30]], [0.5, 0.4], [0, 1]),
        masks=BoxMasks(torch.ones(2, 28, 28)),
        keypoints=Keypoints(torch.full((2, 3, 2), 10.12345), torch.full((2, 3), 2)),
        keypoint_scores=torch.tensor([[0.25, -1.5, 9.0]] * 2),
    )
    collector.add(batch([3], resized=(40, 50), original=(80, 200)), [some])
    first, second = collector.results()
    pixels = mask_tools.decode(first["segmentation"])
    assert pixels.shape == (80, 200)
    assert mask_tools.toBbox(first["segmentation"]).tolist() == pytest.approx(first["bbox"], abs=3)
    assert first["keypoints"] == [40.494, 20.247, 0.25, 40.494, 20.247, -1.5]
    assert "keypoints" not in second  # a class that has none
    assert second["segmentation"] == first["segmentation"]


def test_keypoints_without_scores_have_their_visibility() -> None:
    some = replace(
        detections([[5, 10, 25, 30]], [0.5], [0]),
        keypoints=Keypoints(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[2]])),
    )
    (result,) = detections_to_results(some, image_id=1, category_ids=(1,))
    assert result["keypoints"] == [1.0, 2.0, 2.0]


def test_collector_keeps_an_image_seen_twice_once() -> None:
    first, second = (ResultCollector(image_id=lambda index: index, category_ids=(5,)) for _ in range(2))
    some = detections([[0, 0, 4, 4]], [0.5], [0])
    first.add(batch([0, 2], resized=(8, 8), original=(8, 8)), [some, some])
    second.add(batch([1, 0], resized=(8, 8), original=(8, 8)), [some, some])
    first.merge(second.state())
    assert [result["image_id"] for result in first.results()] == [0, 1, 2]


def test_clear_forgets() -> None:
    collector = ResultCollector(image_id=lambda index: index, category_ids=(5,))
    collector.add(batch([0], resized=(8, 8), original=(8, 8)), [detections([[0, 0, 4, 4]], [0.5], [0])])
    collector.clear()
    assert collector.results() == []


def test_evaluating_the_file_equals_evaluating_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    truth, _ = random_problem(0)
    collector = ResultCollector(image_id=lambda i: truth["images"][i]["id"], category_ids=(2, 5, 7))
    boxes = torch.tensor([a["bbox"] for a in truth["annotations"]])
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) + torch.randn(len(boxes), 4) * 3
    some = Detections(boxes, torch.rand(len(boxes)), torch.randint(0, 3, (len(boxes),)))
    for index in range(len(truth["images"])):
        collector.add(batch([index], resized=(300, 300), original=(400, 400)), [some])
    in_memory = CocoEvaluator(truth).evaluate(collector.results())
    write_predictions(tmp_path / "predictions.json", collector.results())
    assert in_memory.AP50 > 0
    assert CocoEvaluator(truth).evaluate(read_results(tmp_path / "predictions.json")) == in_memory


def test_empty_predictions_can_be_read_again(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.json", [])
    assert read_results(tmp_path / "p.json") == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "metrics.json", {"AP": 0.5})

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "metrics.json", {"AP": 0.6})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"AP": 0.5}
    assert [*tmp_path.iterdir()] == [tmp_path / "metrics.json"]


BAD = {
    "has no score": lambda r: r.pop("score"),
    "score is not a finite number": lambda r: r.update(score=float("nan")),
    "bbox is not four finite": lambda r: r.update(bbox=[0.0, 0.0, float("inf"), 1.0]),
    "negative width or height": lambda r: r.update(bbox=[9.0, 9.0, -1.0, 1.0]),
    "image_id is not a number": lambda r: r.update(image_id=[10]),
    "is a list, not an object": None,
}


@pytest.mark.parametrize(("message", "spoil"), BAD.items())
def test_a_bad_result_is_an_error(message: str, spoil: Any) -> None:
    results: list[Any] = perfect_results(ground_truth())
    if spoil is None:
        results[1] = [1, 2]
    else:
        spoil(results[1])
    with pytest.raises(ValueError, match=r"^dt.json: 1 of 3 results: .*The first is number 1 ") as error:
        CocoEvaluator(ground_truth()).evaluate(results, source="dt.json")
    assert message in str(error.value)


def moved(key: str, change: Any) -> list[dict[str, Any]]:
    return [{**result, key: change(result[key])} for result in perfect_results(ground_truth())]


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("image_id", lambda i: i + 1, "name images that the ground truth does not have: 11, 21"),
        ("image_id", lambda i: i + 1, "1-based where the ground truth is 0-based"),
        ("image_id", str, "written as texts, and as numbers in the ground truth"),
        ("image_id", {10: 700, 20: "b.jpg"}.get, "Its images are 10, 20"),
        ("image_id", lambda i: i + 700, "Evaluate against the annotations"),
        ("category_id", lambda i: i - 1, "0-based where the ground truth is 1-based"),
        ("category_id", lambda i: i + 50, "Its categories are 1 cat, 3 dog"),
    ],
)
def test_unknown_ids_are_counted_and_explained(key: str, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"dt.json: 3 results name") as error:
        CocoEvaluator(ground_truth()).evaluate(moved(key, change), source="dt.json")
    assert message in str(error.value)
