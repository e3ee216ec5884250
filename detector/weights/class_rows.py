"""Rows of the layers that have some for each class: from the classes of a file to those of a model.

# K classes of a layer
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models import detection

from detector.weights.foreign import Project

_FCOS_CLASSES = "head.classification_head.cls_logits."
_RCNN_CLASSES = "head.roi_heads.box_predictor.cls_score."
_RCNN_BOXES = "head.roi_heads.box_predictor.bbox_pred."
CLASS_LAYERS = (_FCOS_CLASSES, _RCNN_CLASSES, _RCNN_BOXES)
# COCO's classes by id, up to 90: torchvision's models have one for every id from 0 on, the others only 80.
_COCO_BY_ID: tuple[str, ...] = tuple(detection.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
_NO_CLASSES = ("__background__", "N/A")
_COCO = tuple(name for name in _COCO_BY_ID if name not in _NO_CLASSES)


@dataclass(frozen=True)
class Matched:
    """Class layers for a model, and by name which of its classes have their rows in the file."""

    state: dict[str, Tensor]
    taken: tuple[str, ...]
    new: tuple[str, ...]


def classes_of(state: Mapping[str, Tensor], stored: Sequence[str], project: Project) -> tuple[str, ...]:
    """The classes of a file in the order of their rows: `stored` with it, or COCO's where the number of rows
    shows them. Empty where they are unknown."""
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
    if project == "torchvision" and count in (90, 91):  # Faster R-CNN has its id 0 as background
        return _COCO_BY_ID[-count:]
    if project in ("mmdetection", "detectron2") and count == len(_COCO):
        return _COCO
    return ()


def matched_rows(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, theirs: Sequence[str], ours: Sequence[str]
) -> Matched:
    """The rows of `state`, of classes `theirs`, in the places that `own` has for `ours`.

    New classes have the rows of `own`, its initialisation. Background keeps its rows where any class does.
    """
    sources = match_names(theirs, ours)
    pairs = [(source, target) for target, source in enumerate(sources) if source is not None]
    layers = {
        name: _placed(name, value, own[name], pairs, len(theirs))
        for name, value in state.items()
        if name in own and name.startswith(CLASS_LAYERS) and pairs
    }
    taken = tuple(name for name, source in zip(ours, sources, strict=True) if source is not None)
    return Matched(layers, taken, tuple(name for name in ours if name not in taken))


def match_names(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    """The place in `theirs` of each of `ours`: of the same name, else of one that differs by case, form of
    Unicode, spaces or underscores alone. Names that are not unique match nothing."""
    counts = Counter(theirs)
    places = {
        name: place for place, name in enumerate(theirs) if counts[name] == 1 and name not in _NO_CLASSES
    }
    exact = [places.get(name) for name in ours]
    free = {place for place in places.values() if place not in exact}
    keys = Counter(_key(theirs[place]) for place in free)
    wanted = Counter(_key(name) for name, place in zip(ours, exact, strict=True) if place is None)
    by_key = {_key(theirs[place]): place for place in free}
    return [
        by_key.get(_key(name)) if place is None and keys[_key(name)] == wanted[_key(name)] == 1 else place
        for name, place in zip(ours, exact, strict=True)
    ]


def _key(name: str) -> str:
    return " ".join(
        unicodedata.normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split()
    )


def _placed(
    name: str, value: Tensor, own: Tensor, pairs: Sequence[tuple[int, int]], num_theirs: int
) -> Tensor:
    """The rows of `value` in a copy of `own`; all of it where classes share their boxes."""
    rows, background = 4 if name.startswith(_RCNN_BOXES) else 1, _background_rows(name)
    if len(value) != rows * (num_theirs + background):
        return value
    result = own.clone()
    source = torch.tensor([*range(background), *(place + background for place, _ in pairs)])
    target = torch.tensor([*range(background), *(place + background for _, place in pairs)])
    grouped = result.unflatten(0, (-1, rows))  # a view
    grouped[target] = value.unflatten(0, (-1, rows))[source].to(own.dtype)
    return result


def _background_rows(name: str) -> int:
    return 0 if name.startswith(_FCOS_CLASSES) else 1
