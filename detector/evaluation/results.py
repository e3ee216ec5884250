"""Detections as COCO results, a list of `{"image_id", "category_id", "bbox": [x, y, w, h], "score"}`.

Results are rounded when they are made, not when they are written. What is evaluated in memory is then exactly
what the file holds, and evaluating the file again gives the same numbers to the last digit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import Key, id_key, is_id, mismatch_hint, shift_hint, shown
from detector.coco.rules import is_box, is_finite_number
from detector.evaluation.result_columns import Resolved, count_keys, has_text, result_columns
from detector.files import write_text_atomically
from detector.structures import Batch, Detections

BOX_DECIMALS = 3  # whole pixels cost 0.7 AP points
SCORE_DECIMALS = 6  # fewer make ties
RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
_NOUNS = {"bbox": "boxes", "segmentation": "masks", "keypoints": "keypoints"}
_NAME_OF = {"image_id": "file_name", "category_id": "category_name"}  # what may stand in for an id


def detections_to_results(
    detections: Detections, *, image_id: Any, category_ids: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return the results of one image, in the order of the detections, rounded.

    Boxes must already be in pixels of the original image. Label i becomes `category_ids[i]`.
    """
    boxes = detections.boxes.detach().to("cpu", torch.float64)
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    scores = detections.scores.detach().to("cpu", torch.float64).tolist()
    labels = detections.labels.tolist()
    assert all(0 <= label < len(category_ids) for label in labels)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(v, BOX_DECIMALS) for v in box],
            "score": round(score, SCORE_DECIMALS),
        }
        for box, score, label in zip(xywh, scores, labels, strict=True)
    ]


class ResultCollector:
    """A collector of a model's detections over a dataset: the only way from `predict` to metrics.

    `image_id` gives the original id of a dataset index. An image seen twice (a distributed sampler pads
    uneven ranks) is kept once.
    """

    def __init__(self, *, image_id: Callable[[int], Any], category_ids: Sequence[Any]) -> None:
        self._image_id = image_id
        self._category_ids = tuple(category_ids)
        self._by_index: dict[int, list[dict[str, Any]]] = {}

    def add(self, batch: Batch, detections: Sequence[Detections]) -> None:
        """Add the detections of a batch as `predict` returns them: in pixels of the resized images."""
        sizes = zip(batch.image_sizes.tolist(), batch.original_sizes.tolist(), strict=True)
        for index, image_detections, (resized, original) in zip(
            batch.indices.tolist(), detections, sizes, strict=True
        ):
            in_file = image_detections.resized(from_size=tuple(resized), to_size=tuple(original))
            self._by_index[index] = detections_to_results(
                in_file, image_id=self._image_id(index), category_ids=self._category_ids
            )

    def state(self) -> dict[int, list[dict[str, Any]]]:
        """Return the results by dataset index, as plain containers that another process can `merge`."""
        return dict(self._by_index)

    def merge(self, state: dict[int, list[dict[str, Any]]]) -> None:
        """Add the results in another collector's `state()`."""
        self._by_index.update(state)

    def results(self) -> list[dict[str, Any]]:
        """Return all results, with images in the order of the dataset."""
        return [result for index in sorted(self._by_index) for result in self._by_index[index]]

    def clear(self) -> None:
        self._by_index.clear()


def check_results(
    results: Sequence[Any], *, truth: GroundTruth, source: str, shape: str = "bbox"
) -> Resolved:
    """Check results and give them the ids of the ground truth, by id and by name.

    `shape` is the key that all need; only boxes are checked here.

    Raises:
        ValueError: some entries could not be evaluated, would be ignored silently, or name two images or
            classes.
    """
    from detector.evaluation.result_ids import resolve  # long, and needed only once there are results

    resolved = resolve(results, truth)
    results = resolved.results
    columns = result_columns(results) if shape == "bbox" else None
    if columns is not None and not resolved.problems:
        images, categories = count_keys(columns.image_ids), count_keys(columns.category_ids)
        _require_none([*_unknown_images(images, truth), *_unknown_categories(categories, truth)], source)
        return replace(resolved, columns=columns)
    faults: Counter[str] = Counter()
    first: dict[str, int] = {}
    images, categories = Counter[Key](), Counter[Key]()
    for position, result in enumerate(results):
        fault = _result_fault(result, shape)
        if fault:
            faults[fault] += 1
            first.setdefault(fault, position)
            continue
        if "image_id" in result and not (resolved.problems and has_text(result, "file_name")):
            images[id_key(result["image_id"])] += 1
        if "category_id" in result:
            categories[id_key(result["category_id"])] += 1
    problems = [
        f"{n} of {len(results)} results: {fault}. The first is number {first[fault]} (counted from 0): "
        f"{_short(results[first[fault]])}."
        for fault, n in faults.items()
    ]
    problems += [*resolved.problems, *_unknown_images(images, truth), *_unknown_categories(categories, truth)]
    _require_none(problems, source)
    return resolved


def _require_none(problems: Sequence[str], source: str) -> None:
    if problems:
        raise ValueError("\n".join(f"{source}: {problem}" for problem in problems))


def write_predictions(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """Write results, one per line, atomically: the file is complete or absent."""
    lines = ",\n".join(json.dumps(result, ensure_ascii=False, allow_nan=False) for result in results)
    write_text_atomically(path, f"[\n{lines}\n]\n" if lines else "[]\n")


def _result_fault(result: Any, shape: str) -> str:
    """Return what is wrong with one result, worded alike for like faults; empty when it is valid."""
    if not isinstance(result, dict):
        return f"is a {type(result).__name__}, not an object"
    missing = [
        key
        for key in ("image_id", "category_id", shape, "score")
        if key not in result and not has_text(result, _NAME_OF.get(key, ""))
    ]
    if missing:
        return f"has no {', '.join(missing)} (only {_NOUNS[shape]} with a score are evaluated)"
    if not is_finite_number(result["score"]):
        return "score is not a finite number"
    if shape != "bbox":
        return _id_fault(result)
    if not is_box(result["bbox"]):
        return "bbox is not four finite numbers [x, y, width, height]"
    if min(result["bbox"][2:]) < 0:
        return "bbox has a negative width or height; it is [x, y, width, height], not [x1, y1, x2, y2]"
    return _id_fault(result)


def _id_fault(result: Mapping[str, Any]) -> str:
    for key in ("image_id", "category_id"):
        if key in result and not is_id(result[key]):
            return f"{key} is not a number or a text"
    return ""


def _unknown_images(used: Counter[Key], truth: GroundTruth) -> list[str]:
    unknown = used.keys() - truth.image_numbers.keys()
    if not unknown:
        return []
    hint = mismatch_hint(unknown, truth.image_numbers) or shift_hint(used, truth.image_numbers)
    if {f"{value}" for _, value in unknown} <= {*truth.file_names}:
        hint = "They are file names, others are ids: write the ids of all images."
    return [
        f"{sum(used[key] for key in unknown)} results name images that the ground truth does not have: "
        f"{shown(unknown)}. Its images are {shown(truth.image_numbers)}. "
        + (hint or "Evaluate against the annotations that the predictions were made for.")
    ]


def _unknown_categories(used: Counter[Key], truth: GroundTruth) -> list[str]:
    unknown = used.keys() - truth.category_numbers.keys()
    if not unknown:
        return []
    known = truth.category_numbers
    classes = ", ".join(f"{shown([key])} {truth.class_names[n - 1]}" for key, n in list(known.items())[:5])
    hint = mismatch_hint(unknown, known) or shift_hint(used, known)
    return [
        f"{sum(used[key] for key in unknown)} results name categories that the ground truth does not have: "
        f"{shown(unknown)}. Its categories are {classes}{', ...' if len(known) > 5 else ''}. "
        + (hint or "Write the category ids of the ground truth.")
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:157]}..."
