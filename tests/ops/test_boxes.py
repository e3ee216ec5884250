"""Box arithmetic against torchvision and by hand."""

from __future__ import annotations

import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder

from detector.ops.boxes import (
    box_area,
    boxes_to_distances,
    clip_boxes,
    decode_boxes,
    distances_to_boxes,
    encode_boxes,
    generalized_iou,
    pairwise_iou,
)
from detector.ops.losses import Focal


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
    actual = Focal()(logits, labels)
    torch.testing.assert_close(actual, expected)
    (gradient,) = torch.autograd.grad(actual, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, expected_gradient)


def test_focal_loss_is_finite_for_extreme_logits() -> None:
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = Focal()(logits, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_pairwise_iou_equals_torchvisions() -> None:
    a, b = _random_boxes(7, 0), _random_boxes(5, 1)
    expected = torchvision.ops.box_iou(a, b)
    torch.testing.assert_close(pairwise_iou(a, b), expected)
    batched = pairwise_iou(torch.stack([a, a + 1]), torch.stack([b, b + 1]))
    torch.testing.assert_close(batched, torch.stack([expected, expected]), rtol=1e-4, atol=1e-5)


def test_boxes_without_area_overlap_nothing() -> None:
    assert pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]))
def test_box_coder_round_trip_and_torchvisions_values(
    seed: int, weights: tuple[float, float, float, float]
) -> None:
    boxes, anchors = _random_boxes(6, seed), _random_boxes(6, seed + 1)
    deltas = encode_boxes(boxes, anchors, weights=weights)
    torch.testing.assert_close(decode_boxes(deltas, anchors, weights=weights), boxes, rtol=1e-4, atol=1e-3)
    theirs = BoxCoder(weights)
    torch.testing.assert_close(deltas, theirs.encode_single(boxes, anchors), rtol=1e-4, atol=1e-4)


def test_box_coder_bounds_what_grows_too_large() -> None:
    deltas, anchor = torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[0.0, 0, 16, 16]])
    decoded = decode_boxes(deltas, anchor, weights=(1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(decoded, torch.tensor([[-492.0, -492, 508, 508]]))
