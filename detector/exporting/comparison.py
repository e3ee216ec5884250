"""Comparison of a graph's detections with the model's."""

# B images, N detections of all images, S cells of a mask's side, P keypoints

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detector.exporting.pasting import pasted_probabilities
from detector.models.detector import Detector
from detector.ops.masks import paste
from detector.structures import Detections

_SAME_PX = 8.0  # detections farther apart are different ones
_FAINT = 0.05  # score thresholds may be this high
_ALIKE = 0.99  # of the keypoints: rounding may choose another of two equally high places of a heat map


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


@dataclass(frozen=True)
class BranchDifference:
    """How far a graph's masks and keypoints are from those that the model predicts for the same boxes.

    `mask` is the largest difference of a probability; of a pasted mask, the largest distance from 0.5 of a
    pixel that is covered in one of the two only. 99 % of the keypoints are within `keypoint_px` along both
    axes, and 99 % of their logits within `keypoint_score`, relative to logits beyond 1.
    """

    mask: float = 0.0
    keypoint_px: float = 0.0
    keypoint_score: float = 0.0


def branch_difference(
    outputs: Sequence[Mapping[str, Tensor]], expected: Sequence[Detections]
) -> BranchDifference:
    """Compare the named outputs for some batches with what `at_the_same_boxes` returns for each."""
    masks, distances, scores = [0.0], [torch.zeros(0)], [torch.zeros(0)]
    for named, detected in zip(outputs, expected, strict=True):
        kept = named["labels"] >= 0
        if "masks" in named and detected.masks is not None and kept.any():
            masks.append(_mask_difference(named["masks"], kept, detected))
        if "keypoints" in named and detected.keypoints is not None:
            assert detected.keypoint_scores is not None
            actual, logits = named["keypoints"][kept], detected.keypoint_scores
            distances.append((actual[..., :2] - detected.keypoints.xy).abs().amax(-1).flatten())
            scores.append(((actual[..., 2] - logits).abs() / logits.abs().clamp(min=1)).flatten())
    return BranchDifference(max(masks), _most(torch.cat(distances)), _most(torch.cat(scores)))


def at_the_same_boxes(model: Detector, raw: object, named: Mapping[str, Tensor]) -> Detections:
    """Return the graph's boxes of all images, with what the model adds to them from its raw outputs."""
    kept = named["labels"] >= 0
    boxes = Detections(named["boxes"][kept], named["scores"][kept], named["labels"][kept])
    return model.head.add_to(raw, boxes, kept.nonzero()[:, 0])


def _mask_difference(
    masks: Float[Tensor, "B K S S"] | Bool[Tensor, "B K H W"], kept: Bool[Tensor, "B K"], expected: Detections
) -> float:
    """Return `BranchDifference.mask` of at least one detection."""
    assert expected.masks is not None
    coverage, actual = expected.masks.coverage, masks[kept]
    if actual.is_floating_point():
        return float((actual - coverage).abs().nan_to_num(torch.inf).max())
    height, width = actual.shape[1:]
    differences = []
    for pixels, mask, box in zip(actual, coverage[:, None], expected.boxes[:, None], strict=True):
        wrong = pixels != paste(mask, box, (height, width))[0]
        distance = (pasted_probabilities(mask, box, (height, width))[0] - 0.5).abs()
        differences.append(float(torch.where(wrong, distance, 0.0).max()))
    return max(differences)


def _most(values: Float[Tensor, " n"]) -> float:
    """Return the value that a share of `_ALIKE` does not exceed, or 0 if there are none."""
    if not len(values):
        return 0.0
    return float(values.nan_to_num(torch.inf).sort().values[math.ceil(_ALIKE * len(values)) - 1])
