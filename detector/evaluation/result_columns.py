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
    well_formed = result_ids(results, "bbox")
    if well_formed is None:
        return None
    boxes: list[Any] = [*map(itemgetter("bbox"), results)]
    if not (_are(boxes, list, tuple) and set(map(len, boxes)) <= {4}):
        return None
    numbers = [*chain.from_iterable(boxes)]
    xywh = _finite(numbers) if _are(numbers, int, float) else None
    if xywh is None or (xywh.reshape(-1, 4)[:, 2:] < 0).any():
        return None
    image_ids, category_ids, scores = well_formed
    return ResultColumns(image_ids, category_ids, xywh.reshape(-1, 4), scores)


def result_ids(results: Sequence[Any], shape: str) -> tuple[list[Any], list[Any], np.ndarray] | None:
    """Return the ids of images and of classes as they are written, and the scores, of results with `shape`.

    None if any result is malformed, lacks the key `shape`, or has an id of another type; what is under the
    key is not looked at.
    """
    try:
        image_ids, category_ids, scores, _ = (
            [*map(itemgetter(key), results)] for key in ("image_id", "category_id", "score", shape)
        )
    except (KeyError, TypeError, IndexError):  # entries that are not objects, or lack a key
        return None
    if not (_are(image_ids, int, str) and _are(category_ids, int, str) and _are(scores, int, float)):
        return None
    numbers = _finite(scores)
    return None if numbers is None else (image_ids, category_ids, numbers)


def _finite(numbers: list[Any]) -> np.ndarray | None:
    """Return numbers as float64; None if any is infinite or too large."""
    try:
        values = np.array(numbers, np.float64)
    except OverflowError:
        return None
    return values if np.isfinite(values).all() else None


def has_text(result: Mapping[str, Any], name: str) -> bool:
    """Return whether a result has a nonempty string under `name`."""
    return isinstance(result.get(name), str) and result[name] != ""


def numbered_by(ids: Sequence[Any], numbers: dict[Key, int]) -> np.ndarray:
    """Return the number of each id (D), int64."""
    known = {value: numbers[id_key(value)] for value in set(ids)}
    return np.fromiter(map(known.__getitem__, ids), np.int64, len(ids))


def _are(values: Sequence[Any], *types: type) -> bool:
    return {*map(type, values)} <= {*types}
