"""The masks and keypoints of detections in COCO results."""

# N detections of an image, K keypoints

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detector.pasting import encoded_masks
from detector.structures import Detections

KEYPOINT_DECIMALS = 3  # as of boxes


def add_masks(results: list[dict[str, Any]], detections: Detections, size: tuple[int, int] | None) -> None:
    """Add the mask of each detection to its result, if there are masks, for an image of (height, width)."""
    if detections.masks is None:
        return
    assert size is not None, "masks need the size of their image"
    texts = encoded_masks(detections.masks.coverage, detections.boxes, size)
    for result, counts in zip(results, texts, strict=True):
        result["segmentation"] = {"size": [*size], "counts": counts}


def add_keypoints(
    results: list[dict[str, Any]], detections: Detections, num_keypoints: Sequence[int]
) -> None:
    """Add the keypoints of each detection to its result, if there are some and its class has any.

    `num_keypoints` is that of each class; () stands for all that there are.
    """
    if detections.keypoints is None:
        return
    xy, scores = detections.keypoints.xy, detections.keypoint_scores
    third = detections.keypoints.visibility if scores is None else scores
    points = torch.cat([xy.detach().double(), third.detach().double()[..., None]], dim=-1).cpu()
    for result, values, label in zip(results, points.tolist(), detections.labels.tolist(), strict=True):
        own = values[: num_keypoints[label]] if num_keypoints else values
        if own:
            result["keypoints"] = [round(value, KEYPOINT_DECIMALS) for point in own for value in point]
