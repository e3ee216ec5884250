"""The raw columns of a COCO file, before any check."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from detector.coco.json_sections import read_sections
from detector.coco.rules import is_finite_number, is_odd_crowd, read_crowd, shown

_CHUNK = 8192
_SECTIONS = ("images", "annotations", "categories")


@dataclass
class RawCoco:
    """The content of a COCO file. Ids are int64 or, if any is not an integer, strings.

    A box that is missing or not four numbers is four NaN, a missing area is NaN. Sizes are (height, width) of
    any type, None if missing. An unreadable `iscrowd` is false in `crowd`. `bad_crowds` shows unreadable
    values, and `bad_boxes` the problems of invalid boxes, by row.
    """

    image_ids: list[Any] = field(default_factory=list)
    file_names: list[Any] = field(default_factory=list)
    sizes: list[tuple[Any, Any]] = field(default_factory=list)
    categories: list[Any] = field(default_factory=list)
    annotation_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    annotation_image_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    annotation_category_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    boxes_xywh: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0))
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    bad_crowds: dict[int, str] = field(default_factory=dict)
    bad_boxes: dict[int, str] = field(default_factory=dict)
    odd_crowd_count: int = 0
    ignore: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # a flag without effect


def read_columns(path: Path) -> RawCoco:
    """Read the columns of `path`. Raises ValueError if it is not a COCO annotation file at all."""
    raw = RawCoco()
    seen: set[str] = set()
    chunks: list[tuple[np.ndarray, ...]] = []
    chunk: list[dict[str, Any]] = []
    count = 0
    for key, value in read_sections(path, lists=_SECTIONS):
        seen.add(key)
        if key not in _SECTIONS or value == []:
            continue
        if not isinstance(value, dict):
            raise ValueError(f'{path}: every element of "{key}" must be an object, found {shown(value)}.')
        if key == "annotations":
            chunk.append(value)
            if len(chunk) == _CHUNK:
                chunks.append(_annotation_columns(chunk, raw, first=count))
                count += len(chunk)
                chunk = []
        elif key == "images":
            raw.image_ids.append(value.get("id"))
            raw.file_names.append(value.get("file_name"))
            raw.sizes.append((value.get("height"), value.get("width")))
        else:
            raw.categories.append({k: value.get(k) for k in ("id", "name", "supercategory")})
    _require_sections(path, seen)
    if chunk:
        chunks.append(_annotation_columns(chunk, raw, first=count))
    if chunks:
        ids, image_ids, category_ids, raw.boxes_xywh, raw.areas, raw.crowd, raw.ignore = (
            _concatenate([c[k] for c in chunks]) for k in range(7)
        )
        raw.annotation_ids, raw.annotation_image_ids, raw.annotation_category_ids = (
            ids,
            image_ids,
            category_ids,
        )
    return raw


def _require_sections(path: Path, seen: set[str]) -> None:
    missing = [s for s in _SECTIONS if s not in seen]
    if missing:
        raise ValueError(
            f"{path}: not a COCO annotation file. Expected the lists {', '.join(_SECTIONS)}; it "
            f"lacks {', '.join(missing)} and has {', '.join(sorted(seen)) or 'nothing'}."
        )


def _annotation_columns(chunk: list[dict[str, Any]], raw: RawCoco, *, first: int) -> tuple[np.ndarray, ...]:
    """Return the columns of a chunk of annotations, which starts at row `first` of the file."""
    boxes = _box_array([a.get("bbox") for a in chunk])
    areas: list[Any] = [a.get("area") for a in chunk]
    for row in np.flatnonzero(~np.isfinite(boxes).all(axis=1)).tolist():
        raw.bad_boxes[first + row] = _why_no_box(chunk[row])
    return (
        id_array([a.get("id") for a in chunk]),
        id_array([a.get("image_id") for a in chunk]),
        id_array([a.get("category_id") for a in chunk]),
        boxes,
        np.array([float(v) if is_finite_number(v) else np.nan for v in areas]),
        _crowd_array([a.get("iscrowd") for a in chunk], raw, first=first),
        np.array([bool(a.get("ignore")) for a in chunk]),
    )


def _crowd_array(values: list[Any], raw: RawCoco, *, first: int) -> np.ndarray:
    crowd = [read_crowd(v) for v in values]
    for row, (is_crowd, value) in enumerate(zip(crowd, values, strict=True)):
        if is_crowd is None:
            raw.bad_crowds[first + row] = shown(value)
        elif type(value) is not int or value not in (0, 1):
            raw.odd_crowd_count += is_odd_crowd(value)
    return np.array(crowd, dtype=bool)


def _why_no_box(annotation: dict[str, Any]) -> str:
    box = annotation.get("bbox")
    if box in (None, []) and "segmentation" in annotation:
        return "it has no bbox but a segmentation. Add the bounding box: [x, y, width, height]"
    if box is None:
        return "bbox is missing or not four finite numbers [x, y, width, height]. Correct or remove it"
    texts = " It holds texts: write numbers." if _holds_texts(box) else ""
    return f"bbox {shown(box)} is not four finite numbers [x, y, width, height].{texts} Correct or remove it"


def _holds_texts(box: Any) -> bool:
    return isinstance(box, str) or (isinstance(box, list) and any(isinstance(v, str) for v in box))


def id_array(values: list[Any]) -> np.ndarray:
    """Return ids as int64 if all are integers (1.0 is, true is not), otherwise as strings, "" if missing."""
    if all(type(v) is int for v in values):
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    if all(type(v) is int and abs(v) < 2**63 for v in values):
        return np.array(values, dtype=np.int64)
    return np.array(["" if v is None else v if isinstance(v, str) else shown(v) for v in values])


def _box_array(values: list[Any]) -> np.ndarray:
    try:
        if set(map(type, chain.from_iterable(values))) <= {int, float}:  # numpy would parse strings, too
            boxes = np.array(values, dtype=np.float64)
            if boxes.shape == (len(values), 4):
                return boxes
    except (TypeError, ValueError, OverflowError):
        pass
    bad = [float("nan")] * 4
    return np.array([[float(x) for x in v] if _is_box(v) else bad for v in values], dtype=np.float64).reshape(
        -1, 4
    )


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite_number, value))


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    if any(p.dtype.kind == "U" for p in parts):
        parts = [p.astype(str) for p in parts]
    return np.concatenate(parts)
