"""Charts are columns that say what they should show."""

from __future__ import annotations

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.errors import analyze_errors, class_curves
from detector.reports.charts import ap_chart, f1_chart, loss_chart, precision_chart
from detector.reports.errors import confusions
from detector.reports.study import Curve, Losses
from tests.evaluation.worlds import run_of, world

CURVE = Curve(
    (1, 2, 3, 4), (0.1, 0.3, None, 0.3), (1.0,) * 4, (1.0,) * 4, (8, 16, 24, 32), (None,) * 4, (4, 8, 12, 16)
)
LOSSES = Losses(
    (1, 2),
    (0.1, 0.01),
    train={"loss": (3.0, 2.0), "loss_cls": (2.0, 1.0)},
    val={"loss": (2.5, None), "loss_cls": (1.5, None)},
    steps=(500, 1000),
    by_step={"loss": (range(1, 1001), [float(i) for i in range(1, 1001)])},
)


def test_ap_is_drawn_by_step_and_the_kept_epoch_marked() -> None:
    """Of equal epochs the last one is kept, as `Checkpoints` does."""
    chart = ap_chart(CURVE)
    assert chart["series"][0]["x"] == [4, 8, 16]
    assert chart["marks"] == [{"x": 16, "y": 0.3, "color": 0, "text": "best: epoch 4, AP 0.3000"}]


def test_losses_between_epochs_are_averaged_to_few_points() -> None:
    series = {s["name"]: s for s in loss_chart(LOSSES, best_step=500)["series"]}
    total = series["total, training"]
    assert len(total["x"]) == 334
    assert (total["x"][0], total["y"][0]) == (3, 2.0)
    assert series["cls, training"]["x"] == [500, 1000]
    assert series["total, validation"]["y"] == [2.5, None]
    assert series["cls, validation"]["color"] == series["cls, training"]["color"]


@pytest.fixture
def model() -> tuple[list[str], object]:
    random = np.random.default_rng(0)
    truth = world(30, random)
    return ["thing", "other"], CocoEvaluator(truth).matched(run_of(truth, random))


def test_each_class_has_its_curves_and_the_operating_point_of_the_confusion(model: tuple) -> None:
    names, matched = model
    errors = analyze_errors(matched)
    curves = class_curves(matched, errors)
    assert np.mean([c.f1 for c in curves], axis=0) == pytest.approx(errors.f1)
    assert np.mean([c.precision for c in curves], axis=0) == pytest.approx(errors.precision["0.50"])
    (matrix,) = confusions({"": errors}, names)
    for number, curve in enumerate(curves):
        assert curve.operating_point is not None
        right = matrix.rows[number][1][number][0]
        assert curve.operating_point[1] == pytest.approx(right / curve.objects)
        assert sum(count for count, _ in matrix.rows[number][1]) == curve.objects
    chart = precision_chart(curves, names, errors)
    assert [s["name"] for s in chart["series"]] == ["thing", "other", "mean at IoU 0.50", "mean at IoU 0.75"]
    assert [m["of"] for m in chart["marks"]] == names
    assert f1_chart(curves, names, errors)["rules"][0]["x"] == errors.best_score


def test_a_class_without_objects_has_no_curve(model: tuple) -> None:
    truth = world(3, np.random.default_rng(0))
    truth["categories"].append({"id": 3, "name": "unseen"})
    matched = CocoEvaluator(truth).matched([])
    errors = analyze_errors(matched)
    curves = class_curves(matched, errors)
    assert (curves[2].objects, curves[2].operating_point) == (0, None)
    names = [s["name"] for s in f1_chart(curves, ["thing", "other", "unseen"], errors)["series"]]
    assert names == ["thing", "other", "mean"]
