"""Comparison of a graph's detections with the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.structures import Detections

_SAME_PX = 8.0  # detections farther apart are different ones
_FAINT = 0.05  # score thresholds may be this high


def detections(boxes: Tensor, scores: Tensor, labels: Tensor) -> list[Detections]:
    """Convert a graph's outputs to one `Detections` per image, without padding."""
    kept = labels >= 0
    return [Detections(boxes[i, k], scores[i, k], labels[i, k]) for i, k in enumerate(kept)]


@dataclass(frozen=True)
class ExportDifference:
    """The largest differences of a graph's detections from the model's, and the number unmatched."""

    count: int
    box_px: float
    score: float
    missing: int


def difference(
    actual: Sequence[Detections], expected: Sequence[Detections], *, score_tolerance: float, limit: int
) -> ExportDifference:
    """Compare detections of the same images, each with the nearest free one of its label in a few pixels.

    A detection without counterpart is missing, unless rounding may decide whether it is kept: its score is
    within `score_tolerance` of the lowest in an image with `limit` detections, or of the lowest of all (at
    most `_FAINT`).
    """
    pairs, missing = [], 0
    faintest = min([_FAINT, *(float(d.scores.min()) for d in (*actual, *expected) if len(d))])
    for a, b in zip(actual, expected, strict=True):
        matched = _matched(a, b)
        pairs += [(_distance_px(a, i, b, j), float((a.scores[i] - b.scores[j]).abs())) for i, j in matched]
        threshold = (
            max([faintest, *(float(d.scores.min()) for d in (a, b) if len(d) >= limit)]) + score_tolerance
        )
        for detected, used in ((a, [i for i, _ in matched]), (b, [j for _, j in matched])):
            unmatched = torch.ones(len(detected), dtype=torch.bool)
            unmatched[used] = False
            missing += int((detected.scores[unmatched] > threshold).sum())
    return ExportDifference(
        count=sum(len(b) for b in expected),
        box_px=max((box for box, _ in pairs), default=0.0),
        score=max((score for _, score in pairs), default=0.0),
        missing=missing,
    )


def _distance_px(a: Detections, i: int, b: Detections, j: int) -> float:
    return float((a.boxes[i] - b.boxes[j]).abs().max())


def _matched(actual: Detections, expected: Detections) -> list[tuple[int, int]]:
    """Return the index pairs of matching detections, best first."""
    distance = (actual.boxes[:, None] - expected.boxes).abs().amax(-1)
    distance = distance.masked_fill(actual.labels[:, None] != expected.labels, torch.inf)
    distance = distance.masked_fill(distance > _SAME_PX, torch.inf)
    distance += (actual.scores[:, None] - expected.scores).abs()  # at one place, the closest score wins
    pairs = []
    for j in range(len(expected) if len(actual) else 0):
        i = int(distance[:, j].argmin())
        if distance[i, j].isfinite():
            pairs.append((i, j))
            distance[i] = torch.inf
    return pairs
