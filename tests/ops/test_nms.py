"""Non-maximum suppression by class."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.ops.nms import batch_class_nms, class_nms, padded_class_nms, suppressed, torchvision_class_nms
from detector.structures import Candidates


def problem(seed: int, count: int = 30) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes, scores without ties, labels."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 2, generator=generator) * 30
    boxes = torch.cat([xy, xy + 5 + torch.rand(count, 2, generator=generator) * 15], dim=1)
    scores = torch.randperm(count, generator=generator).float() / count
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


def kept(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, limit: int = 100) -> torch.Tensor:
    return class_nms(boxes, scores=scores, labels=labels, iou_threshold=0.5, limit=limit)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_nms_of_its_own_result_changes_nothing(seed: int) -> None:
    boxes, scores, labels = problem(seed)
    keep = kept(boxes, scores, labels)
    assert kept(boxes[keep], scores[keep], labels[keep]).tolist() == list(range(len(keep)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_the_boxes_does_not_matter(seed: int) -> None:
    boxes, scores, labels = problem(seed)
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
    shuffled = kept(boxes[order], scores[order], labels[order])
    assert torch.equal(order[shuffled], kept(boxes, scores, labels))


def test_a_batch_is_its_images_and_only_candidates_count() -> None:
    problems = [problem(seed) for seed in (0, 1)]
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*problems, strict=True))
    case = Candidates(boxes, scores, labels, scores > 0.4, num_labels=3, iou_threshold=0.5, limit=4)
    for (b, s, c), allowed, index in zip(problems, case.allowed, batch_class_nms(case), strict=True):
        expected = kept(b[allowed], s[allowed], c[allowed], limit=4)
        assert torch.equal(index, torch.where(allowed)[0][expected])


def test_detections_are_what_suppression_keeps_best_first() -> None:
    boxes, scores, labels = (torch.stack(parts) for parts in zip(problem(0), problem(1), strict=True))
    candidates = Candidates(boxes, scores, labels, scores > 0.4, num_labels=3, iou_threshold=0.5, limit=4)
    for i, (case, index) in enumerate(zip(suppressed(candidates), batch_class_nms(candidates), strict=True)):
        assert 0 < len(case) == len(index)
        assert torch.equal(case.boxes, boxes[i, index])
        assert torch.equal(case.labels, labels[i, index])
        assert case.scores.tolist() == sorted(scores[i, index].tolist(), reverse=True)


def test_padded_indices_are_those_of_the_batch() -> None:
    problems = [problem(seed) for seed in (0, 1)]
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*problems, strict=True))
    case = Candidates(boxes, scores, labels, scores > 0.8, num_labels=3, iou_threshold=0.5, limit=20)
    for row, expected in zip(padded_class_nms(case), batch_class_nms(case), strict=True):
        assert 0 < len(expected) < 20
        assert row.tolist() == expected.tolist() + [-1] * (20 - len(expected))


def test_nothing_to_keep() -> None:
    boxes, scores, labels = problem(0)
    none = torch.zeros(1, len(boxes), dtype=torch.bool)
    case = Candidates(boxes[None], scores[None], labels[None], none, num_labels=3, iou_threshold=0.5, limit=4)
    assert [len(index) for index in batch_class_nms(case)] == [0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([-1.0, 0.3, 0.9, 2.0]), st.sampled_from([1, 4, 30]))
def test_torchvisions_operator_alone_keeps_the_same(seed: int, threshold: float, limit: int) -> None:
    problems = [problem(seed + image) for image in range(3)]
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*problems, strict=True))
    boxes[1] -= 1000  # images do not meet, wherever their boxes are
    case = Candidates(boxes, scores, labels, scores > threshold, 3, 0.5, limit)
    assert torch.equal(torchvision_class_nms(case), padded_class_nms(case))


@pytest.mark.parametrize(
    "count", [0, 1, 30, 1000, 1500]
)  # above 1000 boxes, classes are suppressed one by one
def test_suppression_is_torchvisions_to_the_last_index(count: int) -> None:
    boxes, scores, labels = problem(3, count)
    scores = (scores * 50).round() / 50  # with ties
    expected = torchvision.ops.batched_nms(boxes, scores, labels, 0.5)
    assert torch.equal(kept(boxes, scores, labels, limit=count), expected)
