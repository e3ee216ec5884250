"""The FCOS head inside a whole detector."""

from __future__ import annotations

import pytest
import torch

from detector.heads import FCOSHead
from detector.structures import FeatureSpec
from tests.samples import make_batch, small_fcos, total

BOXES = [[[8.0, 8, 40, 40], [30, 20, 60, 62]], [[0, 0, 50, 64]]]
LABELS = [[0, 2], [1]]
SIZES = [(64, 64), (64, 50)]


def test_every_parameter_gets_a_finite_gradient() -> None:
    torch.manual_seed(0)
    model = small_fcos(stages=(4, 5)).train()
    total(model.loss(make_batch(BOXES, LABELS, sizes=SIZES))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_batch_without_any_box_trains_on_background() -> None:
    model = small_fcos().train()
    losses = model.loss(make_batch([[], []], [[], []], sizes=SIZES))
    assert losses["loss_box"].item() == 0
    assert losses["loss_centerness"].item() == 0
    assert losses["loss_cls"].item() > 0
    total(losses).backward()


def test_padding_of_targets_changes_no_loss() -> None:
    model = small_fcos().eval()
    batch = make_batch(BOXES, LABELS, sizes=SIZES)
    more = make_batch([*BOXES, [[0.0, 0, 9, 9]] * 7], [*LABELS, [0] * 7], sizes=[*SIZES, (64, 64)])
    assert more.targets.boxes.shape[1] == 7
    one = total(model.loss(batch))
    trimmed = make_batch(BOXES, LABELS, sizes=SIZES)
    padded = type(batch.targets)(
        *(t[:2] for t in (more.targets.boxes, more.targets.labels, more.targets.valid))
    )
    two = total(
        model.loss(
            type(batch)(trimmed.images, trimmed.image_sizes, trimmed.original_sizes, trimmed.indices, padded)
        )
    )
    assert two.item() == pytest.approx(one.item(), rel=1e-6)


def test_order_of_boxes_changes_no_loss() -> None:
    model = small_fcos().eval()
    one = total(model.loss(make_batch(BOXES, LABELS, sizes=SIZES)))
    two = total(model.loss(make_batch([b[::-1] for b in BOXES], [v[::-1] for v in LABELS], sizes=SIZES)))
    assert two.item() == pytest.approx(one.item(), rel=1e-6)


def test_detections_lie_in_their_image_and_come_best_first() -> None:
    torch.manual_seed(0)
    model = small_fcos().eval()
    for (height, width), found in zip(
        SIZES, model.predict(make_batch(BOXES, LABELS, sizes=SIZES)), strict=True
    ):
        assert 0 < len(found) <= 100
        assert found.boxes.min() >= 0
        assert found.boxes[:, 2].max() <= width
        assert found.boxes[:, 3].max() <= height
        assert found.scores.diff().le(0).all()


def test_score_threshold_of_one_gives_no_detections() -> None:
    model = small_fcos().eval()
    model.head.score_threshold = 1.0
    assert [len(d) for d in model.predict(make_batch(BOXES, LABELS, sizes=SIZES))] == [0, 0]


def test_loss_and_predict_equal_each_alone() -> None:
    model = small_fcos().eval()
    batch = make_batch(BOXES, LABELS, sizes=SIZES)
    losses, found = model.loss_and_predict(batch)
    assert losses["loss_cls"].item() == model.loss(batch)["loss_cls"].item()
    assert torch.equal(found[0].boxes, model.predict(batch)[0].boxes)


def test_no_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_classes: expected at least 1, got 0"):
        FCOSHead([FeatureSpec("p3", 32, 8)], 0)
