"""What finished runs are compared by."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from detector.comparing.compared import compared
from detector.comparing.subjects import (
    Subject,
    _config_of,
    _paths_by_variant,
    _tasks,
    _without_times,
    subject_of_files,
    subject_of_folders,
)
from detector.evaluation.coco import CocoEvaluator
from detector.reports.comparison import condition_verdict
from detector.run_folder import RunFolder
from tests.comparing.finished import write_run
from tests.evaluation.problems import ground_truth
from tests.evaluation.shapes import random_masks
from tests.training.tiny import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("subjects") / "data")


def subject(*variants: Path | Sequence[Path]) -> Subject:
    paths = [
        str(variant) if isinstance(variant, Path) else [str(run) for run in variant] for variant in variants
    ]
    return subject_of_folders(paths, CocoEvaluator, generate_into=Path("/none"))


def test_a_run_of_an_earlier_version_keeps_its_box_loss(tmp_path: Path) -> None:
    files = RunFolder(tmp_path)
    roi = {"_target_": "detector.heads.RoIHead", "box_loss": "smooth_l1", "smooth_l1_beta": 0.5}
    training = {"max_epochs": 1, "early_stopping_patience": None}
    files.config.write_text(yaml.safe_dump({"model": {"head": {"roi": roi}}, "training": training}))
    files.predictions.write_text("[]")
    files.write_epochs([{"epoch": 1, "images_seen": 8, "seconds": 1.0, "images_per_second": 8.0}])
    now = _config_of(tmp_path)["model"]["head"]["roi"]
    assert now["box_loss"] == {"_target_": "detector.ops.SmoothL1", "beta": 0.5}
    assert "smooth_l1_beta" not in now


def test_mistakes_in_what_to_compare(tmp_path: Path) -> None:
    truth, a = tmp_path / "gt.json", str(tmp_path / "a.json")
    truth.write_text(json.dumps(ground_truth()))
    Path(a).write_text("[]")
    cases: list[tuple[list[str | list[str]], str | None, str]] = [
        ([a], str(truth), "expected at least 2 to compare, got 1"),
        ([a, a], str(truth), "is given twice"),
        ([[a], [a, a]], str(truth), "expected as many seeds of each variant, got [1, 2]"),
        ([a, str(tmp_path / "b.json")], None, "needs its ground truth: annotations="),
    ]
    for variants, file, expected in cases:
        with pytest.raises(ValueError, match=re.escape(expected)):
            subject_of_files(variants, file, CocoEvaluator)
    with pytest.raises(ValueError, match=r"is no finished run of detector train: it has no config\.yaml"):
        subject(tmp_path, tmp_path / "x")


def test_runs_that_validated_part_of_the_images_are_compared_on_these(dataset: Path, tmp_path: Path) -> None:
    part = ("training.limit_val_batches=1", "data.val_batch_size=4")
    a, b = (write_run(tmp_path / name, dataset, *part, images=4) for name in "ab")
    assert len(subject(a, b).evaluator.truth.image_numbers) == 4


def test_a_part_and_the_whole_of_the_images_are_not_compared(dataset: Path, tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", dataset)
    b = write_run(tmp_path / "b", dataset, "training.limit_val_batches=1")
    with pytest.raises(ValueError, match="a and b were validated on different images or boxes"):
        subject(a, b)


def test_runs_on_other_images_are_not_compared(dataset: Path, tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", dataset)
    b = write_run(tmp_path / "b", write_dataset(tmp_path / "data", seed=1))
    with pytest.raises(ValueError, match="a and b were validated on different images or boxes"):
        subject(a, b)


def test_every_run_is_looked_at_for_differences(dataset: Path, tmp_path: Path) -> None:
    """Not the first of each variant alone: here, the second of b was trained otherwise."""
    a0, a1, b0 = (write_run(tmp_path / name, dataset, f"seed={name[1]}") for name in ("a0", "a1", "b0"))
    b1 = write_run(tmp_path / "b1", dataset, "seed=1", "training.max_epochs=1", "model.neck.out_channels=16")
    assert subject([a0, a1], [b0, b1]).notes == (
        "The runs of a variant differ in model.neck.out_channels: 32, 32 and 16.",
        "The runs of a variant differ in training.max_epochs: 2, 2 and 1.",
    )


def test_an_unfinished_run_is_refused(dataset: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", dataset, "training.max_epochs=1")
    config = RunFolder(run).config
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 9"))
    advice = re.escape(f"ended in epoch 1 of 9. Go on with it by training.resume={run}")
    with pytest.raises(ValueError, match=f"{advice}$"):
        subject(run, tmp_path / "b")


def test_runs_are_paired_by_their_seed(dataset: Path, tmp_path: Path) -> None:
    a0, a1, b0, b1, b2 = (
        write_run(tmp_path / name, dataset, f"seed={name[1]}", ap=number / 8)
        for number, name in enumerate(("a0", "a1", "b0", "b1", "b2"))
    )
    as_given, shuffled = subject([a0, a1], [b0, b1]), subject([a0, a1], [b1, b0])
    assert as_given.curves is not None
    assert shuffled.curves is not None
    assert {seed: curve.ap[0] for seed, curve in as_given.curves["b0"].items()} == {0: 2 / 8, 1: 3 / 8}
    assert shuffled.curves["b1"] == as_given.curves["b0"]
    assert as_given.notes == shuffled.notes == ()
    assert "not trained with the same seeds (a0 [0, 1], b0 [0, 2])" in subject([a0, a1], [b0, b2]).notes[0]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/fcos/2026-12-01_10-00-00", "runs/rcnn/2026-12-01_11-00-00"], ["fcos", "rcnn"]),
        (["a/fcos/2026-12-01_10-00-00", "b/fcos/2026-12-01_10-00-00"], ["a/fcos", "b/fcos"]),
        (["runs/one", "runs/two"], ["one", "two"]),
        (["runs/2026-12-01_10-00-00", "runs/2026-12-02"], ["2026-12-01_10-00-00", "2026-12-02"]),
    ],
)
def test_runs_are_named_without_times_where_that_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert [*_paths_by_variant("runs", paths)] == names


def test_runs_that_only_their_time_tells_apart_are_named_by_their_options() -> None:
    named = {"2026-12-01_10-00-00": [Path("a")], "2026-12-01_11-00-00": [Path("b")]}
    configs = {
        name: [{"name": "fcos", "seed": seed, "optimizer": {"lr": lr}}]
        for seed, (name, lr) in enumerate(zip(named, (0.1, 0.2), strict=True))
    }
    renamed, by_name = _without_times(named, configs)
    assert renamed == {"fcos, lr=0.1": [Path("a")], "fcos, lr=0.2": [Path("b")]}
    assert by_name["fcos, lr=0.2"][0]["seed"] == 1
    alike = {name: [{"name": "fcos", "seed": 0}] for name in named}
    assert _without_times(named, alike)[0] == named


def test_masks_of_files_are_compared_by_their_own_metric(tmp_path: Path) -> None:
    truth, results = random_masks(1)
    objects = [one for one in truth["annotations"] if isinstance(one["segmentation"], list)]
    smaller = [[(0.9 * np.array(part)).tolist() for part in one["segmentation"]] for one in objects]
    better = [
        *results,
        *({**one, "segmentation": s, "score": 0.9} for one, s in zip(objects, smaller, strict=True)),
    ]
    for name, content in (("gt", truth), ("a", results), ("b", better)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    masks = subject_of_files(files, str(tmp_path / "gt.json"), CocoEvaluator, metric="segm/AP50")
    condition, _ = compared(masks, num_resamples=50)
    expected = [CocoEvaluator(truth, task="segm").evaluate(one).values["AP50"] for one in (results, better)]
    (comparison,) = condition.comparisons.values()
    assert comparison.decided_by.name == "AP50"
    difference = comparison.decisive
    assert difference is not None
    assert [difference.a, difference.b] == pytest.approx(expected)
    assert comparison.verdict_p == difference.p_value
    assert comparison.metrics["AP"].delta != difference.delta
    assert comparison.seed_deltas == pytest.approx((difference.delta,))
    assert f"segm/AP50 {difference.b:.3f} against {difference.a:.3f}" in condition_verdict(
        condition, next(iter(condition.comparisons))
    )


def test_a_metric_that_cannot_decide_is_refused(tmp_path: Path) -> None:
    masks = Subject("", CocoEvaluator(random_masks(1)[0], task="segm"), {}, metric="segm/AR1")
    with pytest.raises(ValueError, match=r"compare\.metric=segm/AR1: expected one of segm/AP, segm/AP50"):
        compared(masks, num_resamples=5)


def test_runs_that_found_nothing_leave_the_other_tasks_to_the_others() -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "score": 0.5}
    mask = {**box, "segmentation": {"size": [4, 4], "counts": "04`0"}}
    assert _tasks({"a": {0: [mask]}, "b": {0: []}}, metric="bbox/AP") == ["bbox", "segm"]
    assert _tasks({"a": {0: [mask]}, "b": {0: [box]}}, metric="bbox/AP") == ["bbox"]
    assert _tasks({"a": {0: []}, "b": {0: []}}, metric="segm/AP") == ["segm"]
