"""What a user adds from a package of their own: one class and one YAML file each, nothing registered."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from detector.config.build import build_options
from detector.config.paths import config_dir
from detector.config.targets import allowing
from detector.evaluation.errors import analyze_errors, class_curves
from detector.evaluation.metrics import Metrics
from detector.evaluation.replicates import replicates_of
from detector.evaluation.statistics import compare, draw
from detector.heads import FasterRCNNHead
from detector.models import Detector
from detector.profiling.noise import random_batch
from detector.reports.html import run_html
from detector.reports.run import Head, RunReport
from detector.reports.tables import print_coco_metrics
from detector.runs.options import TrainOptions
from tests.evaluation.problems import random_problem
from tests.extensions.loss import Cubic
from tests.extensions.neck import Projections

CONFIGS = Path(__file__).parent / "extensions" / "configs"
SMALL = ("model/backbone=resnet18", "model.backbone.weights=null", "data.root=data")


def options_of(*overrides: str) -> TrainOptions:
    words = [f"hydra.searchpath=[file://{CONFIGS}]", "name=x", "output_dir=out", *SMALL, *overrides]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", overrides=words)
    with allowing(["tests.extensions."]):
        return build_options(cfg, TrainOptions)


def model_of(*overrides: str) -> Detector:
    with allowing(["tests.extensions."]):
        model: Detector = options_of(*overrides).model(num_classes=2)
    return model


def test_a_neck() -> None:
    model = model_of("data=coco", "model=fcos", "model/neck=projections")
    assert isinstance(model.neck, Projections)
    batch = random_batch(num_classes=2, image_size=(64, 64), batch_size=1)
    assert all(loss.isfinite() for loss in model.loss(batch).values())


def test_a_loss() -> None:
    model = model_of("data=coco", "model=faster_rcnn_small", "model/head/roi/box_loss=cubic")
    assert isinstance(model.head, FasterRCNNHead)
    assert model.head.roi_heads.box_loss == Cubic(scale=2.0)


def test_a_branch_of_the_second_stage() -> None:
    model = model_of("data=coco", "model=faster_rcnn_small", "experiment=centers")
    batch = random_batch(num_classes=2, image_size=(64, 64), batch_size=1)
    assert model.loss(batch)["loss_center"] == 0
    (detections,) = model.eval().predict(batch)
    assert detections.keypoints is not None
    torch.testing.assert_close(
        detections.keypoints.xy[:, 0], (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    )


def test_a_format_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = options_of("model=fcos", "data=squares", "data.root=squares").data
    data.prepare_data()
    data.setup("fit")
    assert (len(data.train_set), data.class_names) == (3, ("square",))


def test_a_metric() -> None:
    truth, results = random_problem(0)
    options = options_of("data=coco", "+evaluation/metrics=missed", "training.monitor=Missed50")
    with allowing(["tests.extensions."]):
        evaluator = options.evaluation(truth)
    metrics = evaluator.evaluate(results)
    assert 0 < metrics.Missed50 < metrics.Missed75 < 1
    assert metrics.per_class["class 7"]["Missed50"] == pytest.approx(5 / 11)
    assert metrics.per_class["class 5"]["Missed50"] == -1
    assert Metrics.from_dict(json.loads(json.dumps(metrics.to_dict())), evaluator.specs) == metrics
    assert options.training.monitored(evaluator.specs).rank(0.1) < 0.2
    matched = evaluator.matched(results)
    errors = analyze_errors(matched)
    report = RunReport(
        Head("FCOS", "data"),
        metrics,
        errors,
        class_curves(matched, errors),
        evaluator.class_names,
        num_images=6,
    )
    assert f"<span>missed at 0.50</span><b>{metrics.Missed50:.4f}</b>" in run_html(report)
    printed = io.StringIO()
    print_coco_metrics(metrics, title="a run", console=Console(file=printed))
    assert f"missed at 0.50  {metrics.Missed50:.4f}" in printed.getvalue()
    draws = draw([replicates_of(matched, evaluator)] * 2, num_resamples=20)
    comparison = compare(draws, [0], [1], class_names=evaluator.class_names, specs=evaluator.specs)
    assert comparison.metrics["Missed50"].a == metrics.Missed50
