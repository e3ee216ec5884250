"""The reader of a COCO file as the ground truth of results, with the checks that need the whole file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from detector.coco.box_format import find_box_format
from detector.coco.ground_truth import GroundTruth, area_of, check_lists, is_box, load_json, located, size_of
from detector.coco.ids import Key, id_key, is_id
from detector.coco.rules import (
    fill_areas,
    no_objects,
    notable_overhangs,
    overhang_note,
    printable,
    read_crowd,
    renumbered_note,
    repeated_files_note,
    repeated_objects,
    repeats_note,
)


def read_ground_truth(path: Path) -> dict[str, Any]:
    """Read a COCO dictionary, keeping each object once.

    Only what a whole file shows is checked here: the format of its boxes, and objects and images listed
    twice. `check_ground_truth`, called by the evaluator, checks the annotations otherwise.

    Raises:
        ValueError: if it is not a COCO file, or its boxes look written in another format.
    """
    dataset = load_json(path, what="COCO annotations")
    check_lists(dataset, source=str(path))
    images = {id_key(i.get("id")): i for i in dataset["images"] if is_id(i.get("id"))}
    known = [i for i, a in enumerate(dataset["annotations"]) if _is_placed(a)]
    boxes = np.array([dataset["annotations"][i]["bbox"] for i in known], dtype=np.float64).reshape(-1, 4)
    repeats = _check_boxes(known, boxes, dataset["annotations"], images, source=str(path))
    kept = [a for i, a in enumerate(dataset["annotations"]) if i not in repeats]
    keys = [id_key(a["id"]) for a in kept if a.get("id") is not None and is_id(a["id"])]
    if len(keys) > len(set(keys)):
        _warn(path, renumbered_note(len(keys) - len(set(keys))))
    _note_repeated_files(path, images)
    return {**dataset, "annotations": kept}


def require_objects(truth: GroundTruth, dataset: dict[str, Any], *, source: str) -> None:
    """Raise ValueError if no object is left to score against: every metric would be undefined."""
    if any(not a["iscrowd"] for a in truth.annotations):
        return
    listed = len(dataset["annotations"])
    why = no_objects(
        listed=listed,
        crowds=len(truth.annotations),
        dropped=listed - len(truth.annotations),
        option="evaluation.on_bad_box=drop",
    )
    raise ValueError(f"{source}: no object to evaluate against: {why}")


def _check_boxes(
    known: list[int],
    boxes: np.ndarray,
    annotations: list[dict[str, Any]],
    images: dict[Key, dict[str, Any]],
    *,
    source: str,
) -> set[int]:
    """Return the positions of repeated objects. Raises ValueError for boxes in another format."""
    placed = [annotations[i] for i in known]
    keys = [id_key(a.get("image_id")) for a in placed]
    sizes = np.array([size_of(images.get(key, {})) for key in keys]).reshape(-1, 2)
    areas = np.array([area_of(a) for a in placed])

    def first(which: np.ndarray) -> str:
        return located(placed[int(np.flatnonzero(which)[0])], images)

    finding = find_box_format(boxes, image_sizes=sizes, areas=areas)
    if finding is not None:
        text = f"{source}: {finding.reason} (the first: {first(finding.suspects)}). {finding.fix}"
        raise ValueError(printable(text))
    beyond = notable_overhangs(boxes, image_sizes=sizes)
    if beyond.any():
        _warn(source, overhang_note(int(beyond.sum()), len(boxes), first(beyond)))
    repeats = repeated_objects(
        _numbers(keys),
        _numbers([id_key(a.get("category_id")) for a in placed]),
        boxes,
        fill_areas(areas, boxes)[0],
        np.array([_flags(a) for a in placed]),
    )
    if repeats.any():
        _warn(source, repeats_note(int(repeats.sum()), first(repeats)))
    return {known[row] for row in np.flatnonzero(repeats)}


def _is_placed(annotation: dict[str, Any]) -> bool:
    """Return whether an annotation has a box, and ids that can be looked up."""
    ids = [annotation.get(key) for key in ("image_id", "category_id")]
    return is_box(annotation.get("bbox")) and all(map(is_id, ids))


def _flags(annotation: dict[str, Any]) -> int:
    return int(read_crowd(annotation.get("iscrowd")) or 0) + 2 * bool(annotation.get("ignore"))


def _numbers(keys: list[Key]) -> np.ndarray:
    numbers: dict[Key, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _note_repeated_files(path: Path, images: dict[Key, dict[str, Any]]) -> None:
    names: dict[str, int] = {}
    for image in images.values():
        if isinstance(name := image.get("file_name"), str) and name:
            names[name] = names.get(name, 0) + 1
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        _warn(path, repeated_files_note(len(repeated), sum(names[n] for n in repeated), repeated[0]))


def _warn(source: str | Path, note: str) -> None:
    warnings.warn(printable(f"{source}: {note}"), stacklevel=3)
