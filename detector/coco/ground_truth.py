"""The COCO ground truth, checked and renumbered so that pycocotools cannot misread it.

pycocotools trusts its input: an annotation id 0 or a repeated one turns a perfect AP into 0.25, missing
`area` or `iscrowd` raise KeyError, and a box without area counts as an object that cannot be detected.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np

from detector.coco.ids import Key, id_key, is_id, mismatch_hint, numbered, shown
from detector.coco.rules import (
    fill_areas,
    filled_areas_note,
    is_encodable,
    is_finite_number,  # re-exported for results.py
    is_odd_crowd,
    odd_boxes,
    odd_crowds_note,
    oversized_areas_note,
    printable,
    read_crowd,
)
from detector.coco.rules import shown as shown_value

_LISTED = 20  # problems shown in one message
_DROP = "Fix the file, or leave them out: evaluation.on_bad_box=drop."


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth for pycocotools, with images, categories and annotations renumbered from 1.

    Images and categories are numbered in the order of their original ids, annotations in the order of the
    file, so pycocotools breaks ties as it would with the original ids. `class_names[n - 1]` belongs to
    category n; if two categories share a name, the id is added to it. `file_names[n - 1]` belongs to image
    n, empty if it has none; `image_sizes` (N, 2) are (height, width), 0 if unknown. `notes` are for the
    reader of the metrics.
    """

    image_numbers: dict[Key, int]
    category_numbers: dict[Key, int]
    class_names: tuple[str, ...]
    file_names: tuple[str, ...]
    image_sizes: np.ndarray
    annotations: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def load_json(path: Path, *, what: str) -> Any:
    """Read a JSON file. Raises ValueError that says what was expected if it is missing or malformed."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # reading a pipe without a writer never ends
        raise ValueError(f"{path}: is no regular file; expected a file with {what} (JSON).")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected {what} (JSON).") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; expected a file with {what} (JSON).") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; expected {what}.") from None
    except ValueError as error:  # invalid JSON or UTF-8, or an integer of too many digits
        raise ValueError(f"{path}: not JSON ({error}); expected {what}.") from None


def of_images(truth: dict[str, Any], ids: Collection[Any]) -> dict[str, Any]:
    """Return the part of a COCO dictionary that belongs to these images."""
    return {
        **truth,
        "images": [image for image in truth["images"] if image["id"] in ids],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in ids],
    }


def check_lists(dataset: Any, *, source: str) -> None:
    """Raise ValueError unless `dataset` has lists of objects: images, annotations, categories."""
    if not isinstance(dataset, dict):
        hint = " It looks like a results file: pass it as predictions=." if isinstance(dataset, list) else ""
        raise ValueError(f"{source}: expected a COCO object, got a {type(dataset).__name__}.{hint}")
    for key in ("images", "annotations", "categories"):
        value = dataset.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            found = "none" if key not in dataset else f"a {type(value).__name__}"
            hint = " It looks like predictions: pass it as predictions=." if _num_scores(dataset) else ""
            raise ValueError(f'{source}: expected a list of objects under "{key}", found {found}.{hint}')


def check_ground_truth(
    dataset: dict[str, Any], *, on_bad_box: Literal["error", "drop"], source: str
) -> GroundTruth:
    """Check the whole ground truth and renumber it.

    An annotation is bad if its box has no area, is not finite, lies wholly outside its image or reaches far
    beyond it, if its `iscrowd` is unreadable, or if its image or category does not exist. Repeated annotation
    ids are harmless here, because they are renumbered. An `area` that is missing or not above 0 becomes the
    box's, a missing `iscrowd` becomes 0. Segmentations are dropped.

    Raises:
        ValueError: naming every bad image, category and annotation. With `on_bad_box="drop"` bad annotations
            are left out with a warning that lists them.
    """
    check_lists(dataset, source=source)
    problems = [
        *_table_problems(dataset["images"], kind="image"),
        *_table_problems(dataset["categories"], kind="category", required="name"),
    ]
    if problems:
        fix = "Fix the file: every image and category needs an id of its own."
        raise ValueError(_listed(problems, source=source, fix=fix))
    images = {id_key(image["id"]): image for image in dataset["images"]}
    names = {id_key(category["id"]): str(category["name"]) for category in dataset["categories"]}
    image_numbers, category_numbers = numbered(images), numbered(names)

    annotations: list[dict[str, Any]] = []
    odd, odd_crowds = _odd_boxes(dataset["annotations"], images), 0
    for position, annotation in enumerate(dataset["annotations"]):
        fault = _annotation_fault(annotation, images, category_numbers) or odd.get(position)
        if fault:
            problems.append(f"{located(annotation, images)}: {fault}")
            continue
        crowd = annotation.get("iscrowd")
        odd_crowds += is_odd_crowd(crowd)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_numbers[id_key(annotation["image_id"])],
                "category_id": category_numbers[id_key(annotation["category_id"])],
                "bbox": [float(v) for v in annotation["bbox"]],
                "area": area_of(annotation),
                "iscrowd": int(read_crowd(crowd) or 0),
            }
        )
    if problems and on_bad_box == "error":
        raise ValueError(_listed(problems, source=source, fix=_id_fix(dataset, image_numbers) + _DROP))
    if problems:
        warnings.warn(_listed(problems, source=source, fix="They are left out."), stacklevel=3)
    for note in _filled_in(annotations, odd_crowds):
        warnings.warn(f"{source}: {note}", stacklevel=3)
    return GroundTruth(
        image_numbers=image_numbers,
        category_numbers=category_numbers,
        class_names=_unique_names(names),
        file_names=tuple(_file_name(images[key]) for key in image_numbers),
        image_sizes=np.array([size_of(images[key]) for key in image_numbers]).reshape(-1, 2),
        annotations=annotations,
        notes=tuple(_notes(dataset, source=source)),
    )


def size_of(image: dict[str, Any]) -> tuple[float, float]:
    """Return (height, width) as in the file, 0 if it has none."""
    height, width = image.get("height"), image.get("width")
    if is_finite_number(height) and is_finite_number(width) and min(height, width) > 0:
        return float(height), float(width)
    return 0.0, 0.0


def area_of(annotation: dict[str, Any]) -> float:
    """Return the area as in the file, NaN if it is not a number."""
    area = annotation.get("area")
    return float(area) if is_finite_number(area) else math.nan


def _table_problems(rows: list[dict[str, Any]], *, kind: str, required: str = "id") -> list[str]:
    problems, seen = [], Counter[Key]()
    for position, row in enumerate(rows):
        missing = [key for key in ("id", required) if key not in row or (key == "name" and not _is_name(row))]
        if missing:
            problems.append(f'{kind} at position {position} has no "{missing[0]}"')
            continue
        if is_id(row["id"]):
            seen[id_key(row["id"])] += 1
        else:
            problems.append(
                f"{kind} at position {position} has id {shown_value(row['id'])}, not a number or a text"
            )
    problems += [f"{kind} id {shown([key])} occurs {n} times" for key, n in seen.items() if n > 1]
    if not rows:
        problems.append(f"there is no {kind}")
    return problems


def _is_name(category: dict[str, Any]) -> bool:
    name = category["name"]
    return is_encodable(name) if isinstance(name, str) else isinstance(name, int | float)


def _annotation_fault(
    annotation: dict[str, Any], images: dict[Key, dict[str, Any]], categories: dict[Key, int]
) -> str:
    """Describe what is wrong with an annotation; empty if nothing is."""
    for key, known, table in (("image_id", images, "images"), ("category_id", categories, "categories")):
        if key not in annotation:
            return f'has no "{key}"'
        if annotation[key] is None and id_key(None) not in known:
            return f'has no "{key}" (null): give it one of those in {table}'
        if not is_id(annotation[key]):
            return f"{key} {shown_value(annotation[key])} is not a number or a text"
        if id_key(annotation[key]) not in known:
            return f"{key} {shown([id_key(annotation[key])])} is not in {table}"
    box = annotation.get("bbox")
    if not is_box(box):
        if box in (None, []) and annotation.get("segmentation"):
            return "has no bbox but a segmentation: add the bounding box [x, y, width, height]"
        texts = ", but texts" if isinstance(box, list) and any(isinstance(v, str) for v in box) else ""
        return f"box {shown_value(box)} is not four finite numbers [x, y, width, height]{texts}"
    if read_crowd(annotation.get("iscrowd")) is None:
        return f"iscrowd {shown_value(annotation['iscrowd'])} is neither 0 nor 1"
    image = images[id_key(annotation["image_id"])]
    return _box_fault(box, width=image.get("width"), height=image.get("height"))


def _box_fault(box: Sequence[int | float], *, width: Any, height: Any) -> str:
    x, y, w, h = box
    for name, value in (("width", w), ("height", h)):
        if value <= 0:
            return f"box {box} has {'zero' if value == 0 else 'negative'} {name}"
    for start, length, limit in ((x, w, width), (y, h, height)):
        # A declared size of zero says nothing about the image.
        if is_finite_number(limit) and limit > 0 and (start >= limit or start + length <= 0):
            return f"box {box} lies wholly outside its {width} x {height} image"
    return ""


def _odd_boxes(annotations: list[dict[str, Any]], images: dict[Key, dict[str, Any]]) -> dict[int, str]:
    """Describe what is wrong with well-formed boxes, by position in the file."""
    positions = [i for i, a in enumerate(annotations) if is_box(a.get("bbox")) and is_id(a.get("image_id"))]
    boxes = np.array([annotations[i]["bbox"] for i in positions], dtype=np.float64).reshape(-1, 4)
    keys = (id_key(annotations[i].get("image_id")) for i in positions)
    sizes = np.array([size_of(images.get(key, {})) for key in keys]).reshape(-1, 2)
    faults: dict[int, str] = {}
    for which, words in odd_boxes(boxes, image_sizes=sizes):
        for row in np.flatnonzero(which).tolist():
            height, width = (f"{side:g}" for side in sizes[row])
            box = shown_value(annotations[positions[row]]["bbox"])
            faults.setdefault(positions[row], words.format(box=box, width=width, height=height).rstrip("."))
    return faults


def _filled_in(annotations: list[dict[str, Any]], odd_crowds: int) -> Iterator[str]:
    """Fill in missing areas, and yield notes on odd crowds and areas."""
    if odd_crowds:
        yield odd_crowds_note(odd_crowds)
    boxes = np.array([a["bbox"] for a in annotations]).reshape(-1, 4)
    areas, wrong = fill_areas(np.array([a["area"] for a in annotations]), boxes)
    for annotation, area in zip(annotations, areas.tolist(), strict=True):
        annotation["area"] = area
    if wrong.any():
        yield filled_areas_note(int(wrong.sum()))
    if note := oversized_areas_note(areas, boxes):
        yield note


def is_box(value: Any) -> TypeGuard[Sequence[int | float]]:
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(is_finite_number, value))


def located(annotation: dict[str, Any], images: dict[Key, dict[str, Any]]) -> str:
    image_id = annotation.get("image_id")
    image = images.get(id_key(image_id), {}) if is_id(image_id) else {}
    file_name = image.get("file_name")
    name = f' ("{file_name if isinstance(file_name, str) else shown_value(file_name)}")' if file_name else ""
    return f"image {shown_value(image_id)}{name}, annotation {shown_value(annotation.get('id'))}"


def _id_fix(dataset: dict[str, Any], images: dict[Key, int]) -> str:
    used = {id_key(a.get("image_id")) for a in dataset["annotations"] if is_id(a.get("image_id"))}
    unknown = used - set(images)
    hint = mismatch_hint(unknown, images) if unknown else ""
    return f"{hint} " if hint else ""


def _file_name(image: dict[str, Any]) -> str:
    name = image.get("file_name")
    return name if isinstance(name, str) else ""


def _num_scores(dataset: dict[str, Any]) -> int:
    """Count the annotations with a score, which only predictions should have."""
    annotations = dataset.get("annotations")
    rows = annotations if isinstance(annotations, list) else []
    return sum(isinstance(row, dict) and "score" in row for row in rows)


def _notes(dataset: dict[str, Any], *, source: str) -> list[str]:
    num_scores = _num_scores(dataset)
    if not num_scores:
        return []
    return [
        f"{source}: {num_scores} of {len(dataset['annotations'])} annotations have a score, as predictions "
        "have. They count as objects; predictions belong into predictions=."
    ]


def _unique_names(names: dict[Key, str]) -> tuple[str, ...]:
    count = Counter(names.values())
    return tuple(
        name if count[name] == 1 else f"{name} (id {shown([key])})" for key, name in sorted(names.items())
    )


def _listed(problems: list[str], *, source: str, fix: str) -> str:
    lines = [printable(f"{source}: {problem}.") for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"... and {len(problems) - _LISTED} more.")
    return "\n".join([*lines, fix])
