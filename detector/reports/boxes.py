"""The boxes of a split: how many of each class, how large, and where."""

# G objects

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.coco.annotations import CocoAnnotations

Chart = dict[str, Any]

_MANY_CLASSES = 40
_CELLS = 16
_SMALL_PX, _LARGE_PX = 32, 96  # COCO's limits of sizes


@dataclass(frozen=True)
class Boxes:
    """The objects of `num_images` images, without crowds.

    `images` and `classes` (G) count from 0; `sizes` (G, 2) are (height, width) of each one's image, 0 where
    unknown.
    """

    num_images: int
    images: np.ndarray
    classes: np.ndarray
    boxes_xywh: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of_annotations(cls, split: CocoAnnotations) -> Boxes:
        images = split.image_of[~split.crowd]
        boxes, labels = split.boxes_xywh[~split.crowd], split.labels[~split.crowd]
        return cls(len(split), images, labels, boxes, split.sizes[images])

    def by_class(self, num_classes: int) -> np.ndarray:
        return np.bincount(self.classes, minlength=num_classes)


def split_charts(splits: Mapping[str, Boxes], class_names: Sequence[str]) -> list[tuple[str, Chart, str]]:
    """Return the charts of the boxes of each split, with title and caption."""
    splits = {name: boxes for name, boxes in splits.items() if len(boxes.classes)}
    if not splits:
        return []
    sizes, about = _size_chart(splits)
    charts = [
        ("Objects by class", _class_chart(splits, class_names), ""),
        ("Objects by size", sizes, about),
        ("Objects in an image", _count_chart(splits), ""),
    ]
    known = {name: boxes for name, boxes in splits.items() if (boxes.sizes > 0).all()}
    return [*charts, ("Places of objects", _place_chart(known), "")] if known else charts


def _class_chart(splits: Mapping[str, Boxes], class_names: Sequence[str]) -> Chart:
    counts = {name: boxes.by_class(len(class_names)) for name, boxes in splits.items()}
    order = np.argsort(-sum(counts.values()), kind="stable")
    title = "class"
    if len(order) > _MANY_CLASSES:
        half = _MANY_CLASSES // 2
        order, title = np.append(order[:half], order[-half:]), f"the {half} most and least frequent classes"
    shares = {name: _shares(of_one) for name, of_one in counts.items()}
    return _bars(
        {name: (shares[name][order], of_one[order]) for name, of_one in counts.items()},
        names=[class_names[i] for i in order],
        x={"label": title, "slant": True},
    )


def _size_chart(splits: Mapping[str, Boxes]) -> tuple[Chart, str]:
    sides = {name: np.sqrt(boxes.boxes_xywh[:, 2:].prod(axis=1)) for name, boxes in splits.items()}
    every = np.concatenate([*sides.values()])
    low, high = np.floor(2 * np.log2(every.min())), np.floor(2 * np.log2(every.max())) + 1
    edges = 2 ** (np.arange(low, high + 1) / 2)  # 32 px is an edge; 96 is near the one at 90.5
    columns = {}
    for name, of_one in sides.items():
        counts = np.bincount(np.clip(np.searchsorted(edges, of_one, side="right") - 1, 0, len(edges) - 2))
        counts = np.pad(counts, (0, len(edges) - 1 - len(counts)))
        columns[name] = (_shares(counts), counts)
    names = [f"{edge:.0f}" if edge >= 10 else f"{edge:.1f}" for edge in edges[:-1]]
    about = "; ".join(
        f"{name}: {np.mean(of_one < _SMALL_PX):.0%} small (below {_SMALL_PX} px), "
        f"{np.mean(of_one > _LARGE_PX):.0%} large (above {_LARGE_PX} px)"
        for name, of_one in sides.items()
    )
    return _bars(columns, names=names, x={"label": "from px, side of a square with the box's area"}), about


def _count_chart(splits: Mapping[str, Boxes]) -> Chart:
    counts = {name: np.bincount(b.images, minlength=b.num_images) for name, b in splits.items()}
    most = max(int(of_one.max(initial=0)) for of_one in counts.values())
    width = -(-(most + 1) // 24)
    columns = {}
    for name, of_one in counts.items():
        images = np.bincount(of_one // width, minlength=most // width + 1)
        columns[name] = (_shares(images), images)
    starts = range(0, most + 1, width)
    names = [str(s) if width == 1 else f"{s}-{s + width - 1}" for s in starts]
    return _bars(columns, names=names, x={"label": "objects in an image"}, y="share of images")


def _place_chart(splits: Mapping[str, Boxes]) -> Chart:
    maps = []
    for name, boxes in splits.items():
        centers = (boxes.boxes_xywh[:, :2] + boxes.boxes_xywh[:, 2:] / 2) / boxes.sizes[:, ::-1]
        x, y = (np.clip(centers * _CELLS, 0, _CELLS - 1).astype(np.int64)).T
        cells = np.bincount(y * _CELLS + x, minlength=_CELLS**2).reshape(_CELLS, _CELLS)
        maps.append({"name": name, "cells": cells.tolist()})
    return {"type": "heat", "maps": maps, "label": "centers of boxes, images scaled to a square"}


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(1, counts.sum())


def _bars(
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    names: Sequence[str],
    x: Mapping[str, Any],
    y: str = "share of objects",
) -> Chart:
    series = [
        {
            "name": name,
            "color": number,
            "y": [round(float(share), 4) for share in shares],
            "text": [f"{count:,} ({share:.1%})" for share, count in zip(shares, counts, strict=True)],
        }
        for number, (name, (shares, counts)) in enumerate(columns.items())
    ]
    return {"type": "bars", "x": {**x, "names": [*names]}, "y": {"label": y}, "series": series}
