"""The FCOS head inside a whole detector."""

from __future__ import annotations

import pytest

from detector.heads import FCOSHead
from detector.structures import FeatureSpec
from tests.samples import make_batch, small_fcos, total

BOXES = [[[8.0, 8, 40, 40], [30, 20, 60, 62]], [[0, 0, 50, 64]]]
LABELS = [[0, 2], [1]]
SIZES = [(64, 64), (64, 50)]


def test_a_batch_without_any_box_trains_on_background() -> None:
    model = small_fcos().train()
    losses = model.loss(make_batch([[], []], [[], []], sizes=SIZES))
    assert losses["loss_box"].item() == 0
    assert losses["loss_centerness"].item() == 0
    assert losses["loss_cls"].item() > 0
    total(losses).backward()


def test_score_threshold_of_one_gives_no_detections() -> None:
    model = small_fcos().eval()
    model.head.score_threshold = 1.0
    assert [len(d) for d in model.predict(make_batch(BOXES, LABELS, sizes=SIZES))] == [0, 0]


def test_no_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_classes: expected at least 1, got 0"):
        FCOSHead([FeatureSpec("p3", 32, 8)], 0)
