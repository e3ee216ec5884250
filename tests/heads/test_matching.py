"""Which box an anchor learns, and which anchors are drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from detector.heads import matching
from detector.heads.matching import BACKGROUND, IGNORED, BalancedSampler, match_boxes
from tests.samples import pad_targets


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 2, generator=generator) * 40
    return torch.cat([xy, xy + 4 + torch.rand(count, 2, generator=generator) * 30], dim=1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5), allow_low_quality_matches=st.booleans())
def test_each_image_of_a_batch_is_matched_as_torchvision_matches_it(
    seed: int, count: int, allow_low_quality_matches: bool
) -> None:
    anchors, boxes = random_boxes(60, seed), random_boxes(count + 2, seed + 1)
    images = [boxes[:count], boxes[count:], boxes[:0]]
    targets = pad_targets([image.tolist() for image in images], [[0] * len(image) for image in images])
    actual = match_boxes(
        anchors.expand(3, -1, -1),
        targets,
        background_iou=0.3,
        foreground_iou=0.6,
        allow_low_quality_matches=allow_low_quality_matches,
    )
    matcher = Matcher(0.6, 0.3, allow_low_quality_matches=allow_low_quality_matches)
    for image, matched in zip(images[:2], actual, strict=False):
        assert torch.equal(matched, matcher(box_iou(image, anchors)))
    assert (actual[2] == BACKGROUND).all()


def test_pieces_give_the_same_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors = random_boxes(100, 0).expand(2, -1, -1)
    targets = pad_targets([random_boxes(3, s).tolist() for s in (1, 2)], [[0] * 3] * 2)
    options: dict[str, Any] = {
        "background_iou": 0.3,
        "foreground_iou": 0.6,
        "allow_low_quality_matches": True,
    }
    whole = match_boxes(anchors, targets, **options)
    monkeypatch.setattr(matching, "_MOST_PAIRS", 7 * 6)
    assert torch.equal(match_boxes(anchors, targets, **options), whole)


def test_every_box_is_learned_by_the_anchors_nearest_to_it() -> None:
    anchors = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 30], [50, 50, 60, 60]]])
    targets = pad_targets([[[18.0, 18, 24, 24]]], [[0]])
    actual = match_boxes(
        anchors, targets, background_iou=0.05, foreground_iou=0.9, allow_low_quality_matches=True
    )
    assert actual.tolist() == [[BACKGROUND, 0, 0, BACKGROUND]]
    actual = match_boxes(
        anchors, targets, background_iou=0.05, foreground_iou=0.9, allow_low_quality_matches=False
    )
    assert actual.tolist() == [[BACKGROUND, IGNORED, IGNORED, BACKGROUND]]


def test_a_box_that_no_anchor_touches_makes_none_foreground() -> None:
    anchors = torch.tensor([[[0.0, 0, 10, 10]]])
    targets = pad_targets([[[50.0, 50, 60, 60]]], [[0]])
    actual = match_boxes(
        anchors, targets, background_iou=0.3, foreground_iou=0.7, allow_low_quality_matches=True
    )
    assert actual.tolist() == [[BACKGROUND]]


@settings(max_examples=40, deadline=None)
@given(
    positives=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    negatives=st.integers(0, 12),
    count=st.integers(1, 8),
)
def test_sampler_draws_its_share_of_each_kind_once(positives: list[int], negatives: int, count: int) -> None:
    kinds = [torch.tensor([1] * n + [-1] * negatives + [0] * (25 - n - negatives)) for n in positives]
    kind = torch.stack(kinds)[:, torch.randperm(25)]
    sample = BalancedSampler(batch_size_per_image=count, positive_fraction=0.5)(kind == 1, kind == -1)
    for i, n in enumerate(positives):
        drawn = sample.index[i][sample.valid[i]]
        expected = min(n, count // 2)
        assert sample.positive[i].sum() == expected
        assert (kind[i][drawn] == 1).sum() == expected
        assert len(drawn) == expected + min(negatives, count - expected)
        assert len(set(drawn.tolist())) == len(drawn)
        assert (kind[i][drawn] != 0).all()
        assert (sample.valid[i] | ~sample.positive[i]).all()


def test_sampler_draws_at_random_and_by_the_seed() -> None:
    positive = torch.ones(1, 100, dtype=torch.bool)
    sampler = BalancedSampler(batch_size_per_image=10, positive_fraction=1.0)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(set(sampler(positive, ~positive).index[0, :10].tolist()))
    assert drawn[0] == drawn[1] != drawn[2]
