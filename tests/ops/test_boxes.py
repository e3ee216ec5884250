"""Box arithmetic against torchvision and by hand."""

from __future__ import annotations

import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.ops.boxes import box_area, boxes_to_distances, clip_boxes, distances_to_boxes, generalized_iou
from detector.ops.losses import focal_loss_sum


def _random_boxes(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(n, 2, generator=generator) * 50
    return torch.cat([xy, xy + 1 + torch.rand(n, 2, generator=generator) * 50], dim=1)


def test_generalized_iou_equals_torchvisions() -> None:
    a, b = _random_boxes(20, 0), _random_boxes(20, 1)
    torch.testing.assert_close(generalized_iou(a, b), torchvision.ops.generalized_box_iou(a, b).diagonal())


def test_area() -> None:
    assert box_area(torch.tensor([1.0, 2, 4, 7])).item() == 15


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_distances_round_trip(seed: int) -> None:
    boxes = _random_boxes(5, seed)
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(seed)) * 100
    torch.testing.assert_close(distances_to_boxes(points, boxes_to_distances(points, boxes)), boxes)


def test_clip_uses_height_for_y_and_width_for_x() -> None:
    clipped = clip_boxes(torch.tensor([[[-5.0, -5, 500, 500]]]), torch.tensor([[30, 70]]))
    assert clipped.tolist() == [[[0, 0, 70, 30]]]


def test_focal_loss_equals_torchvisions() -> None:
    logits = torch.randn(2, 7, 4, requires_grad=True)
    labels = torch.randint(-1, 4, (2, 7))
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), 4).float() * (labels >= 0)[..., None]
    expected = torchvision.ops.sigmoid_focal_loss(logits, one_hot, reduction="sum")
    found = focal_loss_sum(logits, labels)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, expected_gradient)


def test_focal_loss_is_finite_for_extreme_logits() -> None:
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = focal_loss_sum(logits, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
