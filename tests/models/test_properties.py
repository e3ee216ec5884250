"""What holds for every model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from detector.models.detector import Detector
from detector.structures import Batch, Targets
from tests.samples import make_batch, small_faster_rcnn, small_fcos, total

BOXES: list[list[list[float]]] = [[[8.0, 8, 40, 40], [30, 20, 60, 62]], [[0, 0, 50, 64]]]
LABELS = [[0, 2], [1]]
SIZES = [(64, 64), (64, 50)]

Make = Callable[..., Detector]


@pytest.fixture(params=[small_fcos, small_faster_rcnn], ids=["fcos", "faster_rcnn"])
def make(request: pytest.FixtureRequest) -> Make:
    torch.manual_seed(0)
    return request.param


def batch() -> Batch:
    return make_batch(BOXES, LABELS, sizes=SIZES)


def test_every_parameter_gets_a_finite_gradient(make: Make) -> None:
    model = make(stages=(4, 5)).train()
    total(model.loss(batch())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_frozen_parameters_get_none(make: Make) -> None:
    model = make().train()
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    total(model.loss(batch())).backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.head.parameters())


def test_a_batch_without_any_box_trains(make: Make) -> None:
    losses = make().train().loss(make_batch([[], []], [[], []], sizes=SIZES))
    assert losses["loss_box_reg"].item() == 0
    assert losses["loss_cls"].item() > 0
    total(losses).backward()


def test_padding_of_targets_changes_no_loss(make: Make) -> None:
    model, plain = make().eval(), batch()
    boxes = torch.cat([plain.targets.boxes, torch.rand(2, 5, 4) * 30], dim=1)
    labels = torch.cat([plain.targets.labels, torch.ones(2, 5, dtype=torch.int64)], dim=1)
    valid = torch.cat([plain.targets.valid, torch.zeros(2, 5, dtype=torch.bool)], dim=1)
    padded = replace(plain, targets=Targets(boxes, labels, valid))
    assert total(model.loss(padded)).item() == pytest.approx(total(model.loss(plain)).item(), rel=1e-5)


def test_order_of_boxes_changes_no_loss(make: Make) -> None:
    model = make().eval()
    other = make_batch([b[::-1] for b in BOXES], [v[::-1] for v in LABELS], sizes=SIZES)
    assert total(model.loss(other)).item() == pytest.approx(total(model.loss(batch())).item(), rel=1e-5)


def test_images_of_a_batch_are_detected_as_each_alone(make: Make) -> None:
    model = make().eval()
    together = model.predict(batch())
    for i in range(2):
        one = batch()
        alone = replace(one.select(slice(i, i + 1)), targets=one.targets.select(slice(0)))
        (actual,) = model.predict(alone)
        torch.testing.assert_close(actual.scores, together[i].scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(actual.boxes, together[i].boxes, rtol=1e-3, atol=1e-2)


def test_detections_lie_in_their_image_and_come_best_first(make: Make) -> None:
    model = make().eval()
    for (height, width), actual in zip(SIZES, model.predict(batch()), strict=True):
        assert 0 < len(actual) <= 100
        assert actual.boxes.min() >= 0
        assert actual.boxes[:, 2].max() <= width
        assert actual.boxes[:, 3].max() <= height
        assert actual.scores.diff().le(0).all()


def test_loss_and_predict_equal_each_alone(make: Make) -> None:
    model = make().eval()
    losses, actual = model.loss_and_predict(batch())
    assert losses["loss_cls"].item() == pytest.approx(model.loss(batch())["loss_cls"].item(), rel=1e-6)
    assert torch.equal(actual[0].boxes, model.predict(batch())[0].boxes)


def test_activations_that_are_not_finite_give_no_detections(make: Make) -> None:
    model = make().eval()
    with torch.no_grad():
        for parameter in model.neck.parameters():
            parameter.fill_(torch.nan)
    assert [len(actual) for actual in model.predict(batch())] == [0, 0]
