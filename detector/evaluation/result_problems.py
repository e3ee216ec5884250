"""What is wrong with results that cannot be evaluated, in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import NUMBER, TEXT, Key, id_key, is_id, other_kind, shown
from detector.coco.rules import is_box, is_finite_number
from detector.evaluation.result_columns import Resolved, has_text
from detector.evaluation.tasks import KEYS, NOUNS

RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
_NOUNS = {key: NOUNS[task] for task, key in KEYS.items()}
_NAME_OF = {"image_id": "file_name", "category_id": "category_name"}  # what may stand in for an id


def require_valid(resolved: Resolved, truth: GroundTruth, *, shape: str, source: str) -> None:
    """Raise ValueError, each line after `source`, if any of the results cannot be evaluated.

    `shape` is the key of what is detected: bbox, segmentation or keypoints.
    """
    results = resolved.results
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
    if problems:
        raise ValueError("\n".join(f"{source}: {problem}" for problem in problems))


def require_no_problems(
    problems: Mapping[int, str], results: Sequence[Any], *, source: str, what: str
) -> None:
    """Raise ValueError, after `source`, if there are problems of results, by their position."""
    if problems:
        first = min(problems)
        raise ValueError(
            f"{source}: {len(problems)} of {len(results)} results have no valid {what}. The first is number "
            f"{first} (counted from 0), of image {results[first]['image_id']!r}: {problems[first]}."
        )


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
    hint = _mismatch_hint(unknown, truth.image_numbers) or _shift_hint(used, truth.image_numbers)
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
    hint = _mismatch_hint(unknown, known) or _shift_hint(used, known)
    return [
        f"{sum(used[key] for key in unknown)} results name categories that the ground truth does not have: "
        f"{shown(unknown)}. Its categories are {classes}{', ...' if len(known) > 5 else ''}. "
        + (hint or "Write the category ids of the ground truth.")
    ]


def _mismatch_hint(unknown: Iterable[Key], known: Mapping[Key, int]) -> str:
    """Return a hint if every unknown id would be known as a string instead of a number, or vice versa."""
    unknown = set(unknown)
    if all(other_kind(key) in known for key in unknown):
        written, expected = ("texts", "numbers") if next(iter(unknown))[0] == TEXT else ("numbers", "texts")
        return f"They are written as {written}, and as {expected} in the ground truth: write them alike."
    return ""


def _shift_hint(used: Iterable[Key], known: Mapping[Key, int]) -> str:
    """Return a hint if all used ids would be known after adding or subtracting one; otherwise empty."""
    used = list(used)
    if any(kind != NUMBER for kind, _ in used):
        return ""
    for step, file_base, truth_base in ((1, 0, 1), (-1, 1, 0)):
        if all((kind, value + step) in known for kind, value in used):
            sign = "+ 1" if step > 0 else "- 1"
            return (
                f"They look {file_base}-based where the ground truth is {truth_base}-based: "
                f"write id {sign} (labels of a model must be mapped back to the ids of the dataset)."
            )
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:157]}..."
