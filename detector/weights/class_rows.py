"""Transfer of the rows of class layers from the classes of a file to those of a model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models import detection

from detector.weights.foreign import KEYPOINTS, MASKS, Project

_FCOS_CLASSES = "head.classification_head.cls_logits."
_RCNN_CLASSES = "head.roi_heads.box_predictor.cls_score."
_RCNN_BOXES = "head.roi_heads.box_predictor.bbox_pred."
CLASS_LAYERS = (_FCOS_CLASSES, _RCNN_CLASSES, _RCNN_BOXES, f"{MASKS}mask_predictor.mask_fcn_logits.")
KEYPOINT_LAYERS = (f"{KEYPOINTS}keypoint_predictor.",)
# COCO's classes by id, up to 90: torchvision's models have one for every id from 0; others have only 80.
_COCO_BY_ID: tuple[str, ...] = tuple(detection.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
_NO_CLASSES = ("__background__", "N/A")
_COCO = tuple(name for name in _COCO_BY_ID if name not in _NO_CLASSES)


@dataclass(frozen=True)
class Matched:
    """Class layers for a model, and the names of its classes with and without rows in the file."""

    state: dict[str, Tensor]
    reused: tuple[str, ...]
    new: tuple[str, ...]


def classes_of(state: Mapping[str, Tensor], stored: Sequence[str], project: Project) -> tuple[str, ...]:
    """Return the classes of a file in the order of their rows; empty if unknown.

    They are those `stored` in it, or COCO's if the number of rows implies them.
    """
    count = next(
        (
            len(value) - _background_rows(name)
            for name, value in state.items()
            if name.startswith((_FCOS_CLASSES, _RCNN_CLASSES)) and value.ndim
        ),
        0,
    )
    if count and len(stored) == count:
        return tuple(stored)
    if project == "torchvision" and count in (90, 91):  # Faster R-CNN uses id 0 as background
        return _COCO_BY_ID[-count:]
    if project in ("mmdetection", "detectron2") and count == len(_COCO):
        return _COCO
    if project != "detector" and count == 1 and any(name.startswith(KEYPOINT_LAYERS) for name in state):
        return ("person",)  # the only class of COCO with keypoints
    return ()


def matched_rows(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, theirs: Sequence[str], ours: Sequence[str]
) -> Matched:
    """Move the rows of `state`, for classes `theirs`, to the positions in `own` for classes `ours`.

    New classes keep the rows of `own`, their initialization. Background rows are taken if any class is.
    """
    sources = match_names(theirs, ours)
    pairs = [(source, target) for target, source in enumerate(sources) if source is not None]
    layers = {
        name: _placed(name, value, own[name], pairs, len(theirs))
        for name, value in state.items()
        if name in own and name.startswith(CLASS_LAYERS) and pairs
    }
    reused = tuple(name for name, source in zip(ours, sources, strict=True) if source is not None)
    return Matched(layers, reused, tuple(name for name in ours if name not in reused))


def match_names(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """Return the position in `theirs` of each of `ours`, or None.

    Names match if they are equal, or else if they differ only by case, Unicode form, spaces, hyphens or
    underscores. Names that are not unique match nothing.
    """
    counts = Counter(theirs)
    places = {
        name: place for place, name in enumerate(theirs) if counts[name] == 1 and name not in _NO_CLASSES
    }
    exact = [places.get(name) for name in ours]
    free = {place for place in places.values() if place not in exact}
    keys = Counter(_key(theirs[place]) for place in free)
    missing = Counter(_key(name) for name, place in zip(ours, exact, strict=True) if place is None)
    by_key = {_key(theirs[place]): place for place in free}
    return [
        by_key.get(_key(name)) if place is None and keys[_key(name)] == missing[_key(name)] == 1 else place
        for name, place in zip(ours, exact, strict=True)
    ]


def _key(name: str) -> str:
    return " ".join(
        unicodedata.normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split()
    )


def _placed(
    name: str, value: Tensor, own: Tensor, pairs: Sequence[tuple[int, int]], num_theirs: int
) -> Tensor:
    """Return a copy of `own` with rows of `value`, or all of `value` if classes share their boxes."""
    rows, background = 4 if name.startswith(_RCNN_BOXES) else 1, _background_rows(name)
    if len(value) != rows * (num_theirs + background) or (background and len(own) == rows):
        return value
    result = own.clone()
    source = torch.tensor([*range(background), *(place + background for place, _ in pairs)])
    target = torch.tensor([*range(background), *(place + background for _, place in pairs)])
    grouped = result.unflatten(0, (-1, rows))  # a view
    grouped[target] = value.unflatten(0, (-1, rows))[source].to(own.dtype)
    return result


def _background_rows(name: str) -> int:
    return 0 if name.startswith(_FCOS_CLASSES) else 1
