"""A COCO ground truth, checked and renumbered, so that pycocotools cannot misread it.

pycocotools trusts its input: an annotation id 0 or a repeated one turns a perfect AP into 0.25, missing
`area` or `iscrowd` raise KeyError, and a box without area counts as an object nobody can find.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np

from detector.evaluation.ids import Key, id_key, is_id, mismatch_hint, numbered, shown

_LISTED = 20  # problems shown in one message


@dataclass(frozen=True)
class GroundTruth:
    """What pycocotools needs, with its own numbers: images, categories and annotations count from 1.

    Images and categories are numbered in the order of their original ids, annotations in the order of the
    file, so pycocotools breaks ties as it would with the original ids. `class_names[n - 1]` belongs to
    category n; where two categories share a name, the id is added to it. `file_names[n - 1]` belongs to image
    n, empty where it has none; `image_sizes` (N, 2) are (height, width), 0 where unknown. `notes` are for the
    reader of the metrics.
    """

    image_numbers: dict[Key, int]
    category_numbers: dict[Key, int]
    class_names: tuple[str, ...]
    file_names: tuple[str, ...]
    image_sizes: np.ndarray
    annotations: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def read_ground_truth(path: Path) -> dict[str, Any]:
    """The COCO dictionary in a file, unchecked but for its three lists."""
    data = load_json(path, what="COCO annotations")
    check_lists(data, source=str(path))
    return data


def load_json(path: Path, *, what: str) -> Any:
    """The JSON value in a file; a missing or malformed file is a ValueError that says what was expected."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected {what} (JSON).") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; expected a file with {what} (JSON).") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}); expected {what}.") from None


def of_images(truth: dict[str, Any], ids: Collection[Any]) -> dict[str, Any]:
    """The part of a COCO dictionary that belongs to these images."""
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
    """Check everything at once and renumber.

    A bad annotation has a box without area, not finite or wholly outside its image, or names an image or
    category that does not exist. Repeated annotation ids are harmless here, because they are renumbered. A
    missing `area` is the box's, a missing `iscrowd` is 0. Segmentations are left out.

    Raises:
        ValueError: naming every image, category and annotation that is wrong. With `on_bad_box="drop"` bad
            annotations are left out with a warning that lists them.
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
    for annotation in dataset["annotations"]:
        fault = _annotation_fault(annotation, images, category_numbers)
        if fault:
            problems.append(f"{_located(annotation, images)}: {fault}")
            continue
        x, y, w, h = (float(v) for v in annotation["bbox"])
        area = annotation.get("area")
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_numbers[id_key(annotation["image_id"])],
                "category_id": category_numbers[id_key(annotation["category_id"])],
                "bbox": [x, y, w, h],
                "area": w * h if area is None else area,
                "iscrowd": int(annotation.get("iscrowd") or 0),
            }
        )
    if problems and on_bad_box == "error":
        fix = _id_fix(dataset, image_numbers) + "Fix the file, or leave them out: evaluation.on_bad_box=drop."
        raise ValueError(_listed(problems, source=source, fix=fix))
    if problems:
        warnings.warn(_listed(problems, source=source, fix="They are left out."), stacklevel=3)
    return GroundTruth(
        image_numbers=image_numbers,
        category_numbers=category_numbers,
        class_names=_unique_names(names),
        file_names=tuple(_file_name(images[key]) for key in image_numbers),
        image_sizes=np.array([_size(images[key]) for key in image_numbers]).reshape(-1, 2),
        annotations=annotations,
        notes=tuple(_notes(dataset, source=source)),
    )


def _table_problems(rows: list[dict[str, Any]], *, kind: str, required: str = "id") -> list[str]:
    problems, seen = [], Counter[Key]()
    for position, row in enumerate(rows):
        missing = [key for key in ("id", required) if key not in row]
        if missing:
            problems.append(f'{kind} at position {position} has no "{missing[0]}"')
            continue
        if is_id(row["id"]):
            seen[id_key(row["id"])] += 1
        else:
            problems.append(f"{kind} at position {position} has id {row['id']!r}, not a number or a text")
    problems += [f"{kind} id {shown([key])} occurs {n} times" for key, n in seen.items() if n > 1]
    if not rows:
        problems.append(f"there is no {kind}")
    return problems


def _annotation_fault(
    annotation: dict[str, Any], images: dict[Key, dict[str, Any]], categories: dict[Key, int]
) -> str:
    """What is wrong with an annotation; empty when it is good."""
    for key, known, table in (("image_id", images, "images"), ("category_id", categories, "categories")):
        if key not in annotation:
            return f'has no "{key}"'
        if not is_id(annotation[key]):
            return f"{key} {annotation[key]!r} is not a number or a text"
        if id_key(annotation[key]) not in known:
            return f"{key} {shown([id_key(annotation[key])])} is not in {table}"
    box = annotation.get("bbox")
    if not is_box(box):
        return f"box {box} is not four finite numbers [x, y, width, height]"
    area = annotation.get("area")
    if area is not None and not is_finite_number(area):
        return f"area {area} is not a finite number"
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


def is_finite_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_box(value: Any) -> TypeGuard[Sequence[int | float]]:
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(is_finite_number, value))


def _located(annotation: dict[str, Any], images: dict[Key, dict[str, Any]]) -> str:
    image_id = annotation.get("image_id")
    image = images.get(id_key(image_id), {}) if is_id(image_id) else {}
    name = f' ("{image["file_name"]}")' if "file_name" in image else ""
    return f"image {image_id!r}{name}, annotation {annotation.get('id')!r}"


def _id_fix(dataset: dict[str, Any], images: dict[Key, int]) -> str:
    used = {id_key(a["image_id"]) for a in dataset["annotations"] if is_id(a.get("image_id"))}
    unknown = used - set(images)
    hint = mismatch_hint(unknown, images) if unknown else ""
    return f"{hint} " if hint else ""


def _file_name(image: dict[str, Any]) -> str:
    name = image.get("file_name")
    return name if isinstance(name, str) else ""


def _size(image: dict[str, Any]) -> tuple[float, float]:
    height, width = (
        float(side) if is_finite_number(side) and side > 0 else 0.0
        for side in (image.get("height"), image.get("width"))
    )
    return height, width


def _num_scores(dataset: dict[str, Any]) -> int:
    """How many annotations have a score, which is what tells predictions."""
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
    lines = [f"{source}: {problem}." for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"... and {len(problems) - _LISTED} more.")
    return "\n".join([*lines, fix])
