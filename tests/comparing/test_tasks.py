"""`detector compare` of runs that predict masks beside boxes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from detector.coco.truth_reader import read_ground_truth
from detector.comparing.compared import compared
from detector.comparing.subjects import subject_of_folders
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.masks import Masks
from detector.run_folder import RunFolder
from tests.comparing.command import comparison, detector
from tests.comparing.finished import write_run
from tests.training.tiny import SIZE, with_shapes, write_dataset


def with_masks(run: Path, *, inset: float) -> Path:
    """Give the perfect boxes of a run masks that are smaller by this share of a side on each side."""
    results = json.loads(RunFolder(run).predictions.read_text())
    for one in results:
        x, y, side, _ = one["bbox"]
        inner = np.array([[x + inset * side, y + inset * side, *[(1 - 2 * inset) * side] * 2]])
        (shape,) = mask.frPyObjects(inner, SIZE, SIZE)
        one["segmentation"] = {"size": shape["size"], "counts": shape["counts"].decode()}
    RunFolder(run).predictions.write_text(json.dumps(results))
    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_shapes(write_dataset(tmp_path_factory.mktemp("tasks") / "data", val_images=10))


@pytest.fixture(scope="module")
def runs(dataset: Path) -> list[Path]:
    return [
        with_masks(write_run(dataset.parent / name, dataset), inset=inset)
        for name, inset in (("a", 0.15), ("b", 0.05))
    ]


def compared_runs(runs: list[Path], out: Path, *words: str) -> dict[str, Any]:
    paths = ",".join(map(str, runs))
    assert detector(f"runs=[{paths}]", f"output_dir={out}", "latency=false", "num_resamples=40", *words) == 0
    (condition,) = comparison(out)["conditions"]
    return dict(condition)


def test_masks_decide_and_boxes_are_shown(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = compared_runs(runs, tmp_path, "compare.metric=segm/AP")
    masks, boxes = condition["comparisons"]["b"], condition["others"]["bbox"]["b"]
    assert masks["verdict"].startswith("b is better than a with 1 seed and 10 images: segm/AP ")
    assert masks["metrics"]["AP"]["delta"] > 0.1
    assert boxes["metrics"]["AP"]["a"] == boxes["metrics"]["AP"]["b"] == pytest.approx(1)
    printed = capsys.readouterr().out
    assert "masks: a = a, b = b" in printed
    assert "boxes: a = a, b = b" in printed
    page, text = (RunFolder(tmp_path).report, RunFolder(tmp_path).summary)
    assert page.read_text(encoding="utf-8").index("<h4>Masks</h4>") < page.read_text(encoding="utf-8").index(
        "<h4>Boxes</h4>"
    )
    of_masks, of_boxes = text.read_text().partition("### Masks")[2].split("### Boxes")
    for name, there in (("disc", of_masks), ("square", of_masks), ("disc", of_boxes), ("square", of_boxes)):
        (row,) = re.findall(rf"^\| {name} \|(.*)$", there, flags=re.MULTILINE)
        assert ("1.000" in row) == (there is of_boxes)  # each task has the table of its own classes


def test_boxes_decide_by_default_and_masks_are_shown(runs: list[Path], dataset: Path, tmp_path: Path) -> None:
    condition = compared_runs(runs, tmp_path)
    assert condition["comparisons"]["b"]["metrics"]["AP"]["delta"] == 0
    assert any(note.startswith("masks: 1 of ") for note in condition["notes"])
    of_masks = condition["others"]["segm"]["b"]["metrics"]
    truth = json.loads((dataset / "val.json").read_text())
    kept = [one for one in truth["annotations"] if "segmentation" in one]
    alone = read_ground_truth({**truth, "annotations": kept}, tasks=("segm",))
    unmasked = truth["annotations"][0]
    for letter, run in zip("ab", runs, strict=True):
        results = [
            one
            for one in json.loads(RunFolder(run).predictions.read_text())
            if (one["image_id"], one["bbox"]) != (unmasked["image_id"], unmasked["bbox"])
        ]
        metrics = CocoEvaluator(alone, task="segm").evaluate(results)
        for name in ("AP", "AP50"):
            assert of_masks[name][letter] == pytest.approx(metrics.values[name])


def test_masks_are_drawn_where_boxes_decide(runs: list[Path]) -> None:
    subject = subject_of_folders([str(run) for run in runs], CocoEvaluator, generate_into=Path("/none"))
    assert subject.evaluator.task == "bbox"
    _, models = compared(subject, num_resamples=5)
    drawn = {variant: [one.shapes for one in images.shapes] for variant, images in models.images.items()}
    assert {variant: [*map(type, shapes)] for variant, shapes in drawn.items()} == {
        "a": [Masks],
        "b": [Masks],
    }


def test_a_task_that_one_run_lacks_is_not_compared(runs: list[Path], dataset: Path, tmp_path: Path) -> None:
    of_boxes = write_run(tmp_path / "boxes", dataset)
    paths: list[str | list[str]] = [str(runs[0]), str(of_boxes)]
    assert subject_of_folders(paths, CocoEvaluator, generate_into=Path("/none")).others == []
