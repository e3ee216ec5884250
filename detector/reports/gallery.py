"""Drawings of the detections of several models in an image, side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from detector.coco.ground_truth import GroundTruth
from detector.drawings import draw_detections
from detector.evaluation.errors import image_f1
from detector.evaluation.matching import Matched, Rows
from detector.structures import Detections

ReadPicture = Callable[[Any], np.ndarray]  # image id -> uint8 RGB, height x width x 3

_LARGEST_SIDE_PX, _QUALITY = 480, 80


@dataclass(frozen=True)
class Found:
    """The detections of a model on `truth`, the score from which they count, and F1 of each image (N)."""

    rows: Rows
    truth: GroundTruth
    score: float
    image_f1: np.ndarray

    @classmethod
    def of(cls, matched: Matched, *, score: float) -> Found:
        """Keep what a gallery needs, without the matches, until all models are known."""
        return cls(matched.rows, matched.truth, score, image_f1(matched, score=score))


@dataclass(frozen=True)
class Example:
    """An image id, the F1 of each model, and the caption and data: URL of each drawing."""

    image: str
    f1: Mapping[str, float]
    pictures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Changes:
    """The images that changed most from `a` to `b`, for the better and for the worse.

    `runs` says which run of each is shown, where there are several.
    """

    condition: str
    a: str
    b: str
    gained: Sequence[Example]
    lost: Sequence[Example]
    runs: str = ""


def most_changed(before: np.ndarray, after: np.ndarray, *, count: int) -> tuple[list[int], list[int]]:
    """Return at most `count` images that gained most, and that lost most, the greatest change first."""
    change = after - before
    order = np.argsort(-change, kind="stable")
    gained = [int(i) for i in order[:count] if change[i] > 0]
    lost = [int(i) for i in order[::-1][:count] if change[i] < 0]
    return gained, lost


def worst(f1: np.ndarray, *, count: int) -> list[int]:
    """Return at most `count` images with the lowest F1, lowest first, none with an F1 of 1."""
    order = np.argsort(f1, kind="stable")
    return [int(i) for i in order[:count] if f1[i] < 1]


def examples(chosen: Sequence[int], models: Mapping[str, Found], *, read: ReadPicture) -> list[Example]:
    """Draw the ground truth and each model's detections in the images with these numbers (from 0)."""
    truth = next(iter(models.values())).truth
    ids = [value for _, value in truth.image_numbers]
    names = truth.class_names
    made = []
    for number in chosen:
        picture = read(ids[number])
        objects = draw_detections(picture, _objects(truth, number), class_names=names, scores=False)
        pictures = [("ground truth", _address(objects))]
        for name, found in models.items():
            drawn = draw_detections(picture, _detections(found, number), class_names=names)
            pictures.append((f"{name}: F1 {found.image_f1[number]:.2f}", _address(drawn)))
        f1 = {name: float(found.image_f1[number]) for name, found in models.items()}
        made.append(Example(str(ids[number]), f1, pictures))
    return made


def _objects(truth: GroundTruth, number: int) -> Detections:
    """Return the objects to find in an image, without crowds."""
    annotations = truth.annotations
    rows = np.arange(len(annotations.crowd))[annotations.rows(number)]
    rows = rows[~annotations.crowd[rows]]
    return _as_detections(annotations.boxes_xywh[rows], np.ones(len(rows)), truth.categories[rows])


def _detections(found: Found, number: int) -> Detections:
    rows = found.rows
    here = rows.selected(np.flatnonzero((rows.images == number + 1) & (rows.scores >= found.score)))
    return _as_detections(here.boxes_xywh, here.scores, here.categories)


def _as_detections(boxes_xywh: Any, scores: Any, categories: Any) -> Detections:
    boxes = torch.as_tensor(np.asarray(boxes_xywh, dtype=np.float32).reshape(-1, 4))
    return Detections(
        boxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
        scores=torch.as_tensor(np.asarray(scores, dtype=np.float32)),
        labels=torch.as_tensor(np.asarray(categories, dtype=np.int64) - 1),
    )


def _address(picture: Image.Image) -> str:
    """Return the drawing as a JPEG in a data: URL."""
    picture.thumbnail((_LARGEST_SIDE_PX, _LARGEST_SIDE_PX))
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
