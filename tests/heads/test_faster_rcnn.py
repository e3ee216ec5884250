"""Options of Faster R-CNN's head."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import torch

from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.roi_branch import Regions
from detector.layers.deform import DeformConv2d, Modulation
from detector.layers.roi_pooling import DeformRoIPool, RoIAlign
from detector.ops import L1, BoxLoss, GIoU, SmoothL1
from tests.samples import make_batch, small_faster_rcnn, total

BOXES: list[list[list[float]]] = [[[8.0, 8, 40, 40], [30, 20, 60, 62]], [[0, 0, 50, 64]]]
LABELS = [[0, 2], [1]]
SIZES = [(64, 64), (64, 50)]


@pytest.mark.parametrize(
    "options",
    [
        {"class_agnostic": True},
        {"box_loss": GIoU()},
        {"box_loss": L1()},
        {"box_loss": GIoU(), "class_agnostic": True},
        {"num_convs": 2, "num_linear": 1, "norm": "group"},
        {"num_convs": 1, "norm": "batch"},
        {"num_convs": 2, "deformable_convs": "all", "deform": partial(DeformConv2d, modulation="none")},
        {"aligned": True, "sampling_ratio": 0},
        {"pooling": partial(DeformRoIPool, width=16), "sampling_ratio": 0},
    ],
    ids=str,
)
def test_options_train_and_predict(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, batch = small_faster_rcnn(**options).train(), make_batch(BOXES, LABELS, sizes=SIZES)
    losses = model.loss(batch)
    assert losses["loss_box_reg"].item() > 0
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(len(detections) for detections in model.eval().predict(batch))


@pytest.mark.parametrize(("chosen", "expected"), [("last", [1]), ("all", [0, 1]), (1, [1]), (0, [])])
def test_deformable_convolutions_of_the_box_head(chosen: int | str, expected: list[int]) -> None:
    head = cast(Any, small_faster_rcnn(num_convs=2, deformable_convs=chosen)).head.roi_heads.box_head
    convs = [block[0] for block in list(head)[:2]]
    assert [i for i, conv in enumerate(convs) if isinstance(conv, DeformConv2d)] == expected


def test_convolutions_of_the_box_head_start_as_torchvisions() -> None:
    """Biases of zero, those of deformable ones too."""
    head = cast(Any, small_faster_rcnn(num_convs=2, deformable_convs="last")).head.roi_heads.box_head
    for block in list(head)[:2]:
        assert block[0].bias.eq(0).all()
        assert block[0].weight.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)


def test_more_deformable_convolutions_than_the_box_head_has_are_an_error() -> None:
    for chosen in ("last", "all", 1):
        with pytest.raises(ValueError, match=f"deformable_convs: expected at most num_convs=0, got {chosen}"):
            small_faster_rcnn(deformable_convs=chosen)


@pytest.mark.parametrize("argument", ["features", "output_size", "sampling_ratio", "aligned"])
def test_what_the_head_sets_for_its_pooling_is_refused(argument: str) -> None:
    message = (
        f"head.roi.pooling: regions are 7 x 7 bins, .* of head.roi, so that {argument} cannot be chosen here"
    )
    with pytest.raises(ValueError, match=message):
        small_faster_rcnn(pooling=partial(RoIAlign, **cast(Any, {argument: 1})))


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
def test_deformable_pooling_starts_as_the_regular_one_of_the_same_seed(modulation: Modulation) -> None:
    losses = []
    for pooling in (RoIAlign, partial(DeformRoIPool, width=16, modulation=modulation)):
        torch.manual_seed(0)
        losses.append(small_faster_rcnn(pooling=pooling).loss(make_batch(BOXES, LABELS, sizes=SIZES)))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-4)


def test_class_agnostic_boxes_are_shared_by_the_classes() -> None:
    torch.manual_seed(0)
    model = small_faster_rcnn(class_agnostic=True, nms_iou_threshold=1.0, detections_per_image=150).eval()
    (detections, _) = model.predict(make_batch(BOXES, LABELS, sizes=SIZES))
    boxes = [detections.boxes[detections.labels == label] for label in range(3)]
    assert torch.equal(boxes[0].unique(dim=0), boxes[1].unique(dim=0))


def test_labels_of_the_candidates_alternate_as_they_say() -> None:
    """An exported file relies on it, and without it suppression would grow with the square of the classes."""
    batch = make_batch(BOXES, LABELS, sizes=SIZES)
    model = small_faster_rcnn().eval()
    detections = model.head.candidates(model(batch.images, batch.image_sizes))
    assert detections.labels_alternate
    assert torch.equal(
        detections.labels, torch.arange(detections.labels.shape[1]).expand_as(detections.labels) % 3
    )


@pytest.mark.parametrize("loss", [SmoothL1(), L1(), GIoU()], ids=str)
def test_exact_boxes_cost_nothing(loss: BoxLoss) -> None:
    """With deltas of zero, a region that is its box has no loss, and every other one has some."""
    model = small_faster_rcnn(box_loss=loss)
    head = cast(FasterRCNNHead, model.head).roi_heads
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    targets = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 12]])
    regions = Regions(
        boxes,
        image=torch.zeros(3, dtype=torch.int64),
        labels=torch.tensor([1, 2, -1]),
        targets=targets,
        matched=torch.tensor([0, 1, -1]),
    )
    losses = head._box_losses(torch.zeros(3, 4, 4), regions)
    assert losses[0].abs() < 1e-6
    assert losses[1] > 0.05
    assert losses[2] == 0
