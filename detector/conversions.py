"""Detections as plain values and as the types of another package."""

# N detections, K keypoints

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from detector.drawings import Drawable
from detector.pasting import encoded_masks, mask_crops

ImageExtent = tuple[int, int]  # height and width in pixels


def as_dict(
    detections: Drawable, *, names: Sequence[str], image_size: ImageExtent | None
) -> dict[str, list[Any]]:
    """Return the columns of detections as lists of plain Python values, as `Detections.to_dict` says."""
    columns: dict[str, list[Any]] = {
        "boxes": detections.boxes.tolist(),
        "scores": detections.scores.tolist(),
        "labels": detections.labels.tolist(),
        "names": [*names],
    }
    if detections.masks is not None:
        size = _required(image_size, "to_dict")
        texts = encoded_masks(detections.masks.coverage, detections.boxes, size)
        columns["masks"] = [{"size": [*size], "counts": text} for text in texts]
    if detections.keypoints is not None:
        xy, scores = detections.keypoints.xy.tolist(), _keypoint_scores(detections).tolist()
        names_of = [_keypoint_names(detections, label, len(xy[0])) for label in columns["labels"]]
        columns["keypoint_names"] = [[*own] for own in names_of]
        columns["keypoints"] = [
            [[*point, score] for point, score, _ in zip(points, of_points, own, strict=False)]
            for points, of_points, own in zip(xy, scores, names_of, strict=True)
        ]
    return columns


def as_supervision(detections: Drawable, *, names: Sequence[str], image_size: ImageExtent | None) -> Any:
    """Return `supervision.Detections`, as `Detections.to_supervision` says."""
    supervision = _supervision("to_supervision")
    mask = (
        None if detections.masks is None else _mask_array(detections, _required(image_size, "to_supervision"))
    )
    return supervision.Detections(
        xyxy=detections.boxes.cpu().numpy(),
        mask=mask,
        confidence=detections.scores.cpu().numpy(),
        class_id=detections.labels.cpu().numpy(),
        data={"class_name": [*names]},
    )


def as_supervision_keypoints(detections: Drawable, *, names: Sequence[str]) -> Any:
    """Return `supervision.KeyPoints`, as `Detections.to_supervision_keypoints` says."""
    supervision = _supervision("to_supervision_keypoints")
    if detections.keypoints is None:
        raise ValueError("These detections have no keypoints: to_supervision() converts boxes and masks.")
    return supervision.KeyPoints(
        xy=detections.keypoints.xy.cpu().numpy(),
        class_id=detections.labels.cpu().numpy(),
        keypoint_confidence=_keypoint_scores(detections).float().cpu().numpy(),
        detection_confidence=detections.scores.cpu().numpy(),
        data={"class_name": [*names]},
    )


def _supervision(method: str) -> Any:
    try:
        import supervision
    except ImportError as error:
        raise ImportError(f"{method}() needs supervision: pip install 'detector[supervision]'") from error
    return supervision


def _required(image_size: ImageExtent | None, method: str) -> ImageExtent:
    if image_size is None:
        raise ValueError(
            "The masks of these detections need the size of their image: pass it in pixels, as in "
            f"{method}(image_size=(height, width))."
        )
    return image_size


def _mask_array(detections: Drawable, size: ImageExtent) -> Bool[np.ndarray, "N _H _W"]:
    assert detections.masks is not None
    pixels = np.zeros((len(detections.labels), *size), dtype=bool)
    for image, (left, top, crop) in zip(
        pixels, mask_crops(detections.masks.coverage, detections.boxes, size), strict=True
    ):
        image[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return pixels


def _keypoint_scores(detections: Drawable) -> Float[Tensor, "N K"] | Tensor:
    """Return the logit of each keypoint, or its visibility where there are none, as in COCO results."""
    assert detections.keypoints is not None
    if detections.keypoint_scores is None:
        return detections.keypoints.visibility
    return detections.keypoint_scores


def _keypoint_names(detections: Drawable, label: int, count: int) -> Sequence[str]:
    """Return the names of a class's keypoints; their numbers if no schemas are known."""
    if not detections.keypoint_schemas:
        return [*map(str, range(count))]
    schema = detections.keypoint_schemas[label]
    return () if schema is None else schema.names
