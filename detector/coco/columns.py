"""The raw columns of a COCO file or dictionary, before any check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace

from detector.coco.json_files import load_json, no_garbage_collection, read_sections
from detector.coco.raw_keypoints import RawKeypoints
from detector.coco.raw_masks import RawMasks
from detector.coco.rules import is_box, is_finite_number, is_odd_crowd, read_crowd, shown
from detector.option_types import TaskName

_CHUNK = 512  # annotations, whose parsed polygons stay in the processor's cache
_SECTIONS = ("images", "annotations", "categories")


# Makes the function that turns an element, text or dictionary, into an object of a class.
_Parser = Callable[[Any], Callable[[Any], Any]]


class _Image(msgspec.Struct, gc=False):
    id: Any = None
    file_name: Any = None
    height: Any = None
    width: Any = None


class Entry(msgspec.Struct, gc=False):
    """An entry of the list of categories, before any check."""

    id: Any = None
    name: Any = None
    supercategory: Any = None
    keypoints: Any = None
    skeleton: Any = None


class _Annotation(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    ignore: Any = None
    score: Any = None


_Mask = TypeVar("_Mask")
_Polygons = list[list[float]] | dict[str, Any]  # or run lengths


class _MaskAnnotation(_Annotation, Generic[_Mask], gc=False):
    segmentation: _Mask | None = None


class _PoseAnnotation(_Annotation, gc=False):
    keypoints: Any = None
    num_keypoints: Any = None


class _MaskPoseAnnotation(_MaskAnnotation[_Mask], Generic[_Mask], gc=False):
    keypoints: Any = None
    num_keypoints: Any = None


_KINDS = {  # whether masks and whether keypoints are read, which takes time
    (False, False): _Annotation,
    (True, False): _MaskAnnotation[Any],
    (False, True): _PoseAnnotation,
    (True, True): _MaskPoseAnnotation[Any],
}
_POLYGON_KINDS = {False: _MaskAnnotation[_Polygons], True: _MaskPoseAnnotation[_Polygons]}


@dataclass
class RawCoco:
    """The content of a COCO file. Ids are int64 or, if any is not an integer, strings.

    A box that is missing or not four numbers is four NaN, a missing area is NaN. Sizes are (height, width) of
    any type, None if missing. An unreadable `iscrowd` is false in `crowd`. `bad_crowds` shows unreadable
    values, and `bad_boxes` the problems of invalid boxes, by row. `score_count` annotations have a score, as
    only predictions should.
    """

    source: str  # the name of the file in messages
    image_ids: list[Any]
    file_names: list[Any]
    sizes: list[tuple[Any, Any]]
    categories: list[Entry]
    annotation_ids: np.ndarray
    annotation_image_ids: np.ndarray
    annotation_category_ids: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray  # a flag without effect
    bad_crowds: dict[int, str]
    bad_boxes: dict[int, str]
    odd_crowd_count: int
    score_count: int
    masks: RawMasks | None = None
    keypoints: RawKeypoints | None = None


def read_columns(path: Path, *, tasks: Sequence[TaskName] = ()) -> RawCoco:
    """Read the columns of `path`, with masks and keypoints if `tasks` need them.

    Raises ValueError if it is not a COCO annotation file at all.
    """
    try:
        content = read_sections(path)
        with no_garbage_collection():
            return _columns(
                (content.images, content.annotations, content.categories),
                lambda kind: msgspec.json.Decoder(kind).decode,
                source=str(path),
                tasks=tasks,
                is_json=True,
            )
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return columns_of(load_json(path, what="COCO annotations"), source=str(path), tasks=tasks)


def columns_of(dataset: Any, *, source: str, tasks: Sequence[TaskName] = ()) -> RawCoco:
    """Return the columns of a COCO dictionary, as `read_columns`.

    Raises ValueError, after `source`, if it is none.
    """
    _require_sections(dataset, source=source)
    return _columns(
        [dataset[section] for section in _SECTIONS],
        lambda kind: partial(msgspec.convert, type=kind),
        source=source,
        tasks=tasks,
    )


def _require_sections(dataset: Any, *, source: str) -> None:
    if isinstance(dataset, list):
        raise ValueError(
            f"{source}: holds a list, expected an object with images, annotations and categories. A list "
            "is a COCO results file (detections): pass it as predictions=, and the ground truth here."
        )
    if not isinstance(dataset, dict):
        raise ValueError(f"{source}: expected a COCO object, got a {type(dataset).__name__}.")
    rows = dataset.get("annotations")
    has_scores = isinstance(rows, list) and any(isinstance(row, dict) and "score" in row for row in rows)
    hint = " It looks like predictions: pass it as predictions=." if has_scores else ""
    if missing := [section for section in _SECTIONS if section not in dataset]:
        raise ValueError(
            f"{source}: not a COCO annotation file. Expected the lists {', '.join(_SECTIONS)}; it lacks "
            f"{', '.join(missing)} and has {', '.join(sorted(map(str, dataset))) or 'nothing'}.{hint}"
        )
    for section in _SECTIONS:
        if not isinstance(dataset[section], list):
            kind = type(dataset[section]).__name__
            raise ValueError(f'{source}: "{section}" must be a list of objects, found a {kind}.{hint}')
        for element in dataset[section]:
            if not isinstance(element, dict):
                raise ValueError(
                    f'{source}: every element of "{section}" must be an object, found {shown(element)}.'
                )


def _columns(
    sections: Sequence[Sequence[Any]],
    parser: _Parser,
    *,
    source: str,
    tasks: Sequence[TaskName],
    is_json: bool = False,
) -> RawCoco:
    """Return the columns of the lists in `_SECTIONS`: `parser` parses the elements, JSON or dictionaries."""
    images, annotations, categories = sections
    parsed_images = [*map(parser(_Image), images)]
    chunks = _Chunks(parser, tasks, is_json=is_json)
    for start in range(0, max(len(annotations), 1), _CHUNK):
        chunks.add(annotations[start : start + _CHUNK])
    ids, image_ids, category_ids, boxes, areas, crowd, ignore = map(
        _concatenate, zip(*chunks.columns, strict=True)
    )
    return RawCoco(
        source=source,
        image_ids=[_as_integer(image.id) for image in parsed_images],
        file_names=[image.file_name for image in parsed_images],
        sizes=[(image.height, image.width) for image in parsed_images],
        categories=[replace(entry, id=_as_integer(entry.id)) for entry in map(parser(Entry), categories)],
        annotation_ids=ids,
        annotation_image_ids=image_ids,
        annotation_category_ids=category_ids,
        boxes_xywh=boxes,
        areas=areas,
        crowd=crowd,
        ignore=ignore,
        bad_crowds=chunks.bad_crowds,
        bad_boxes=chunks.bad_boxes,
        odd_crowd_count=chunks.odd_crowd_count,
        score_count=chunks.score_count,
        masks=chunks.masks,
        keypoints=chunks.keypoints,
    )


class _Chunks:
    """The columns of annotations, chunk by chunk, so that few parsed annotations exist at a time."""

    def __init__(self, parser: _Parser, tasks: Sequence[TaskName], *, is_json: bool) -> None:
        self.masks = RawMasks() if "segm" in tasks else None
        self.keypoints = RawKeypoints() if "keypoints" in tasks else None
        kind = _KINDS[self.masks is not None, self.keypoints is not None]
        self._annotation, self._dictionary = parser(kind), parser(dict)
        # Not from dictionaries: msgspec would take tuples for lists, and numpy's numbers for Python's.
        with_polygons = is_json and self.masks is not None
        self._polygons = parser(_POLYGON_KINDS[self.keypoints is not None]) if with_polygons else None
        self._count = 0
        self.columns: list[tuple[np.ndarray, ...]] = []
        self.bad_crowds: dict[int, str] = {}
        self.bad_boxes: dict[int, str] = {}
        self.odd_crowd_count = self.score_count = 0

    def add(self, elements: Sequence[Any]) -> None:
        chunk = self._parse(elements)
        boxes = _box_array([a.bbox for a in chunk])
        for row in np.flatnonzero(~np.isfinite(boxes).all(axis=1)).tolist():
            self.bad_boxes[self._count + row] = _why_no_box(self._dictionary(elements[row]))
        self.columns.append(
            (
                id_array([a.id for a in chunk]),
                id_array([a.image_id for a in chunk]),
                id_array([a.category_id for a in chunk]),
                boxes,
                np.array([float(a.area) if is_finite_number(a.area) else np.nan for a in chunk]),
                self._crowds([a.iscrowd for a in chunk]),
                np.array([bool(a.ignore) for a in chunk], dtype=bool),
            )
        )
        if self.keypoints is not None:
            self.keypoints.add([a.keypoints for a in chunk], [a.num_keypoints for a in chunk])
        self.score_count += sum(a.score is not None for a in chunk)
        self._count += len(chunk)

    def _parse(self, elements: Sequence[Any]) -> list[Any]:
        """Return the annotations, after their masks were added."""
        if self.masks is not None and self._polygons is not None:
            try:
                chunk = [*map(self._polygons, elements)]
            except msgspec.ValidationError:
                pass  # the parser below, which takes anything, leaves what is wrong to be named
            else:
                if self.masks.add_numbers([a.segmentation for a in chunk]):
                    return chunk
        chunk = [*map(self._annotation, elements)]
        if self.masks is not None:
            self.masks.add([a.segmentation for a in chunk])
        return chunk

    def _crowds(self, values: list[Any]) -> np.ndarray:
        crowd = [read_crowd(v) for v in values]
        for row, (is_crowd, value) in enumerate(zip(crowd, values, strict=True), start=self._count):
            if is_crowd is None:
                self.bad_crowds[row] = shown(value)
            elif type(value) is not int or value not in (0, 1):
                self.odd_crowd_count += is_odd_crowd(value)
        return np.array(crowd, dtype=bool)


def _why_no_box(annotation: dict[str, Any]) -> str:
    box = annotation.get("bbox")
    if box in (None, []) and annotation.get("segmentation"):
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
    values = [*map(_as_integer, values)]
    if all(type(v) is int and abs(v) < 2**63 for v in values):
        return np.array(values, dtype=np.int64)
    return np.array(["" if v is None else v if isinstance(v, str) else shown(v) for v in values])


def _as_integer(value: Any) -> Any:
    """Return 1 for 1.0, which some tools write, and any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _box_array(values: list[Any]) -> np.ndarray:
    try:
        if set(map(type, chain.from_iterable(values))) <= {int, float}:  # numpy would parse strings, too
            boxes = np.array(values, dtype=np.float64)
            if boxes.shape == (len(values), 4):
                return boxes
    except (TypeError, ValueError, OverflowError):
        pass
    bad = [float("nan")] * 4
    rows = [[float(x) for x in v] if is_box(v) else bad for v in values]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    if any(p.dtype.kind == "U" for p in parts):
        parts = [p.astype(str) for p in parts]
    return np.concatenate(parts)
