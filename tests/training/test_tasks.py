"""A model of masks and keypoints is validated, kept and reported by each task."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.evaluation.coco import CocoEvaluator
from detector.heads.fcos import FCOSHead, FCOSOutputs
from detector.runs.inference import evaluate_checkpoint
from detector.structures import BoxMasks, Detections, Keypoints
from tests.training.tiny import CORNERS, run_training, with_shapes, write_dataset


def shaped(detections: Detections) -> Detections:
    """Detections whose masks are their boxes, and whose keypoints are their upper corners."""
    left, top, right, _ = detections.boxes.unbind(-1)
    corners = torch.stack([torch.stack([left, top], -1), torch.stack([right, top], -1)], dim=1)
    return replace(
        detections,
        masks=BoxMasks(torch.ones(len(detections), 28, 28)),
        keypoints=Keypoints(corners, torch.full((len(detections), 2), 2)),
        keypoint_scores=torch.ones(len(detections), 2),
    )


@pytest.fixture(scope="module")
def shapes() -> Iterator[None]:
    """FCOS predicts masks and keypoints, too."""
    predict = FCOSHead.predict

    def predict_shapes(head: FCOSHead, outputs: FCOSOutputs) -> list[Detections]:
        return [shaped(one) for one in predict(head, outputs)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FCOSHead, "predict", predict_shapes)
        patch.setattr(FCOSHead, "tasks", ("bbox", "segm", "keypoints"))
        yield


@pytest.fixture(scope="module")
def run(shapes: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    root = with_shapes(write_dataset(folder / "data", train_images=4, val_images=6))
    sigmas = "data.keypoint_sigmas=[0.1,0.2]"
    return run_training(root, folder / "run", "training.max_epochs=1", "training.monitor=segm/AP", sigmas)


@pytest.fixture(scope="module")
def best(run: Path) -> Checkpoint:
    return load_checkpoint(run / "checkpoints" / "best.ckpt")


def test_metrics_of_each_task_are_logged_and_kept(run: Path, best: Checkpoint) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"AP", "APs", "segm/AP", "segm/APs", "keypoints/AP", "keypoints/APm"} <= metrics.keys()
    with (run / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    for name in ("AP", "segm/AP", "keypoints/AP50"):
        assert float(row[f"val/{name}"]) == pytest.approx(metrics[name], abs=1e-6)
        assert best.metrics[f"val/{name}"] == pytest.approx(metrics[name], abs=1e-6)


def test_masks_and_sigmas_are_those_of_the_training_data(run: Path, best: Checkpoint) -> None:
    notes = " ".join(json.loads((run / "metrics.json").read_text())["notes"])
    assert re.search(r"masks: 1 of \d+ annotations have no mask: their boxes are ignored regions", notes)
    assert "keypoints: 2 keypoints are compared with the sigmas of data.keypoint_sigmas." in notes
    assert [schema.sigmas for schema in best.keypoint_schemas if schema] == [(0.1, 0.2)]


def test_predictions_hold_masks_and_the_keypoints_of_classes_that_have_some(run: Path) -> None:
    results = json.loads((run / "predictions.json").read_text())
    assert {one["category_id"] for one in results} == {3, 7}
    assert all(one["segmentation"]["size"] == [64, 64] for one in results)
    assert {("keypoints" in one, one["category_id"]) for one in results} == {(True, 7), (False, 3)}


def test_keypoints_of_each_class_are_in_the_checkpoint(best: Checkpoint) -> None:
    disc, square = best.keypoint_schemas
    assert (best.class_names, disc) == (("disc", "square"), None)
    assert square is not None
    assert square.names == (*CORNERS,)


def test_each_task_has_a_report(run: Path) -> None:
    for folder, noun in ((run, "boxes"), (run / "segm", "masks"), (run / "keypoints", "keypoints")):
        assert (folder / "errors.json").is_file()
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert (f"validation images: {noun}" in page) == (noun != "boxes")


def test_the_checkpoint_evaluates_to_the_same_numbers(run: Path) -> None:
    evaluated = evaluate_checkpoint(
        str(run / "checkpoints" / "best.ckpt"), data_overrides={}, evaluator=CocoEvaluator, accelerator="cpu"
    )
    written = json.loads((run / "metrics.json").read_text())
    assert [one.evaluator.task for one in evaluated] == ["bbox", "segm", "keypoints"]
    for one, start in zip(evaluated, ("", "segm/", "keypoints/"), strict=True):
        assert one.metrics.values["AP"] == written[f"{start}AP"]
        assert one.results == json.loads((run / "predictions.json").read_text())


def test_a_monitor_of_another_task_ends_before_data_is_read(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FCOSHead, "tasks", ("bbox",))
        with pytest.raises(
            ValueError, match=r"training\.monitor=segm/AP: the model predicts bbox, no segm\."
        ):
            run_training(tmp_path / "none", tmp_path / "run", "training.monitor=segm/AP")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry["keypoint_schemas"].pop(), "expected a list of 2, one for each class"),
        (lambda entry: entry["keypoint_schemas"][1].pop("sigmas"), "expected a dict of names, sigmas"),
        (lambda entry: entry["keypoint_schemas"][1]["sigmas"].append(0.1), "2 names and 3 sigmas"),
        (lambda entry: entry["keypoint_schemas"][1].update(skeleton=[["left_corner"]]), "expected a dict"),
        (lambda entry: entry.update(keypoint_schemas="none"), "expected a list of 2"),
    ],
)
def test_schemas_that_do_not_fit_are_named(run: Path, tmp_path: Path, change: Any, message: str) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    change(content["detector"])
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"detector\.keypoint_schemas") as error:
        load_checkpoint(tmp_path / "bad.ckpt")
    assert message in str(error.value)
