"""The FCOS head inside a whole detector."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from detector.heads.fcos import FCOSHead
from detector.layers.deform import DeformConv2d
from detector.structures import FeatureSpec
from tests.samples import make_batch, small_fcos, total

BOXES: list[list[list[float]]] = [[[8.0, 8, 40, 40], [30, 20, 60, 62]], [[0, 0, 50, 64]]]
LABELS = [[0, 2], [1]]
SIZES = [(64, 64), (64, 50)]


def test_a_batch_without_any_box_trains_on_background() -> None:
    model = small_fcos().train()
    losses = model.loss(make_batch([[], []], [[], []], sizes=SIZES))
    assert losses["loss_box_reg"].item() == 0
    assert losses["loss_centerness"].item() == 0
    assert losses["loss_cls"].item() > 0
    total(losses).backward()


def test_score_threshold_of_one_gives_no_detections() -> None:
    model = small_fcos().eval()
    cast(FCOSHead, model.head).score_threshold = 1.0
    assert [len(d) for d in model.predict(make_batch(BOXES, LABELS, sizes=SIZES))] == [0, 0]


def test_no_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_classes: expected at least 1, got 0"):
        FCOSHead([FeatureSpec("p3", 32, 8)], 0)


def head(**options: Any) -> FCOSHead:
    torch.manual_seed(0)
    return FCOSHead([FeatureSpec("p3", 32, 8), FeatureSpec("p4", 32, 16)], 3, num_convs=2, **options)


def test_deformable_convolutions_are_the_last_of_each_tower_and_start_as_plain_ones() -> None:
    plain, deformable = head(), head(deformable_convs=1)
    for tower in (deformable.classification_head.conv, deformable.regression_head.conv):
        assert [type(m).__name__ for m in tower[::3]] == ["Conv3x3", "DeformConv2d"]
    features, sizes = [torch.randn(1, 32, 8, 8), torch.randn(1, 32, 4, 4)], torch.tensor([[64, 64]])
    plain.load_state_dict({k: v for k, v in deformable.state_dict().items() if ".offset." not in k})
    expected, actual = plain(features, sizes), deformable(features, sizes)
    torch.testing.assert_close(actual.logits, expected.logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="deformable_convs: expected at most num_convs=2, got 3"):
        head(deformable_convs=3)


@pytest.mark.parametrize(("chosen", "expected"), [("last", [1]), ("all", [0, 1]), (0, [])])
def test_deformable_convolutions_by_name(chosen: int | str, expected: list[int]) -> None:
    tower = head(deformable_convs=chosen).regression_head.conv
    assert [i for i, m in enumerate(tower[::3]) if isinstance(m, DeformConv2d)] == expected


def test_level_scales_multiply_the_distances_of_their_level_alone() -> None:
    plain, scaled = head(), head(level_scales=True)
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if ".scales." not in k})
    with torch.no_grad():
        scaled.regression_head.scales[1].fill_(3.0)
    features, sizes = [torch.randn(1, 32, 8, 8), torch.randn(1, 32, 4, 4)], torch.tensor([[64, 64]])
    expected, actual = plain(features, sizes), scaled(features, sizes)
    torch.testing.assert_close(actual.distances[:, :64], expected.distances[:, :64])
    torch.testing.assert_close(actual.distances[:, 64:], 3 * expected.distances[:, 64:])
    torch.testing.assert_close(actual.centerness, expected.centerness)
