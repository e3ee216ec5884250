"""Losses that heads are given: values, and a new one from outside the package."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from detector.heads.rpn import RPN
from detector.ops import L1, BoxLoss, DecodedBoxLoss, Focal, GIoU, SmoothL1
from detector.ops.losses import BoxCoder, DeltaCoder, DistanceCoder
from detector.structures import FeatureSpec
from tests.samples import make_batch, small_faster_rcnn, small_fcos, total

LOSSES = [GIoU(), L1(), SmoothL1(beta=0.5)]
CODERS = [
    DeltaCoder(torch.tensor([[0.0, 0, 8, 8], [4, 2, 30, 12]]), (10.0, 10.0, 5.0, 5.0)),
    DistanceCoder(torch.tensor([[4.0, 4], [12, 8]]), torch.tensor([8.0, 16])),
]
BOXES = torch.tensor([[1.0, 2, 9, 7], [5, 1, 40, 11]])


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.0), (0.5, 1.5)])
def test_focal_loss_equals_torchvisions(alpha: float, gamma: float) -> None:
    logits = torch.randn(4, 50, 7, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.randint(-1, 7, (4, 50), generator=torch.Generator().manual_seed(1))
    one_hot = F.one_hot(labels.clamp(min=0), 7) * (labels >= 0)[..., None]
    expected = torchvision.ops.sigmoid_focal_loss(logits, one_hot.float(), alpha, gamma, reduction="sum")
    torch.testing.assert_close(Focal(alpha, gamma)(logits, labels), expected)


def test_smooth_l1_is_quadratic_below_beta() -> None:
    predicted, target = torch.tensor([[0.25, 0, 3, 0]]), torch.zeros(1, 4)
    assert SmoothL1(beta=0.5)(predicted, target).tolist() == [0.25**2 / 1 + 3 - 0.25]
    assert L1()(predicted, target).tolist() == SmoothL1(beta=0.0)(predicted, target).tolist() == [3.25]


@pytest.mark.parametrize("coder", CODERS, ids=lambda coder: type(coder).__name__)
def test_coders_decode_what_they_encode(coder: BoxCoder) -> None:
    torch.testing.assert_close(coder.decode(coder.encode(BOXES)), BOXES)


@pytest.mark.parametrize("coder", CODERS, ids=lambda coder: type(coder).__name__)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_perfect_prediction_costs_nothing_and_another_one_does(loss: BoxLoss, coder: BoxCoder) -> None:
    encoded = coder.encode(BOXES)
    assert loss.of_encoded(encoded, BOXES, coder=coder).abs().max() < 1e-5
    assert loss.of_encoded(encoded, BOXES + 3, coder=coder).min() > 0.01


def test_losses_compare_deltas_or_boxes() -> None:
    coder = CODERS[0]
    predicted = coder.encode(BOXES + 2)
    torch.testing.assert_close(
        L1().of_encoded(predicted, BOXES, coder=coder), L1()(predicted, coder.encode(BOXES))
    )
    torch.testing.assert_close(
        GIoU().of_encoded(predicted, BOXES, coder=coder), GIoU()(BOXES + 2, BOXES), rtol=1e-4, atol=1e-5
    )


@dataclass(frozen=True)
class CenterDistance(DecodedBoxLoss):
    """A loss that the package does not know."""

    scale_px: float = 10.0

    def __call__(self, predicted: Tensor, target: Tensor) -> Tensor:
        centers = (predicted[..., :2] + predicted[..., 2:] - target[..., :2] - target[..., 2:]) / 2
        return centers.abs().sum(-1) / self.scale_px


@pytest.mark.parametrize("loss", [*LOSSES, CenterDistance()], ids=str)
def test_every_head_trains_with_every_loss(loss: BoxLoss) -> None:
    batch = make_batch([[[8.0, 8, 40, 40]], []], [[1], []], sizes=[(64, 64), (64, 50)])
    torch.manual_seed(0)
    for model in (small_fcos(box_loss=loss), small_faster_rcnn(box_loss=loss)):
        losses = model.train().loss(batch)
        assert losses["loss_box_reg"].item() > 0
        total(losses).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_proposal_network_takes_every_loss(loss: BoxLoss) -> None:
    torch.manual_seed(0)
    rpn = RPN([FeatureSpec("p2", 8, 4)], box_loss=loss, batch_size_per_image=100_000)
    batch = make_batch([[[8.0, 8, 40, 40]]], [[0]], sizes=[(64, 64)])
    losses = rpn.loss(rpn([torch.randn(1, 8, 16, 16)]), batch.targets)
    assert losses["loss_rpn_box_reg"].item() > 0
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rpn.parameters())


def test_the_loss_of_classes_is_the_one_given() -> None:
    batch, actual = make_batch([[[8.0, 8, 40, 40]]], [[0]], sizes=[(64, 64)]), []
    for alpha in (0.25, 0.5):
        torch.manual_seed(0)
        model = small_fcos(classification_loss=Focal(alpha)).eval()
        actual.append(model.loss(batch)["loss_cls"].item())
    assert actual[0] != pytest.approx(actual[1], rel=1e-3)
