"""Well-formed results as columns: checking a million of them takes a second, not a minute."""

# D results

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from detector.coco.ids import Key, id_key


@dataclass(frozen=True)
class ResultColumns:
    """Results as columns, in their order.

    Ids (D) are as written, integers or strings; `boxes_xywh` (D, 4) are finite float64 with sides of 0 or
    more; `scores` (D) are finite float64.
    """

    image_ids: list[Any]
    category_ids: list[Any]
    boxes_xywh: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Resolved:
    """Results with the ids of the ground truth.

    `problems` name the results with no match or two, `notes` those matched by name; `columns` hold the
    results if they were checked and are all well-formed.
    """

    results: Sequence[Any]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: ResultColumns | None = None


def result_columns(results: Sequence[Any]) -> ResultColumns | None:
    """Return the columns of results; None if any is malformed or has an id of another type."""
    try:
        image_ids, category_ids, boxes, scores = (
            [*map(itemgetter(key), results)] for key in ("image_id", "category_id", "bbox", "score")
        )
        numbers = [*chain.from_iterable(boxes)]
    except (KeyError, TypeError, IndexError):  # entries that are not objects, lack a key, or have no box
        return None
    if not (
        _are(image_ids, int, str)
        and _are(category_ids, int, str)
        and _are(boxes, list, tuple)
        and set(map(len, boxes)) <= {4}
        and _are(numbers, int, float)
        and _are(scores, int, float)
    ):
        return None
    try:
        xywh, score = np.array(numbers, np.float64).reshape(-1, 4), np.array(scores, np.float64)
    except OverflowError:  # integers too large for float64
        return None
    if not (np.isfinite(xywh).all() and np.isfinite(score).all() and (xywh[:, 2:] >= 0).all()):
        return None
    return ResultColumns(image_ids, category_ids, xywh, score)


def has_text(result: Mapping[str, Any], name: str) -> bool:
    """Return whether a result has a nonempty string under `name`."""
    return isinstance(result.get(name), str) and result[name] != ""


def numbered_by(ids: Sequence[Any], numbers: dict[Key, int]) -> np.ndarray:
    """Return the number of each id (D), int64."""
    known = {value: numbers[id_key(value)] for value in set(ids)}
    return np.fromiter(map(known.__getitem__, ids), np.int64, len(ids))


def _are(values: Sequence[Any], *types: type) -> bool:
    return {*map(type, values)} <= {*types}
