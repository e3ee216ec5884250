"""The ids of COCO files: any JSON scalar, compared by value and by kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

# An id as a dictionary key: numbers sort before strings, and neither `True == 1` nor `"7" == 7`.
Key = tuple[int, Any]

_NUMBER, _TEXT, _BOOLEAN, _NULL = range(4)


def id_key(value: Any) -> Key:
    """Return the key of an id that passes `is_id`. Keys sort like ids in pycocotools: by value, by letter."""
    if isinstance(value, bool):
        return (_BOOLEAN, value)
    if isinstance(value, str):
        return (_TEXT, value)
    return (_NULL, 0) if value is None else (_NUMBER, value)


def is_id(value: Any) -> bool:
    """Return whether a value can be an id: a JSON scalar, but not the NaN that Python's JSON accepts."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (int, str))


def shown(keys: Iterable[Key], *, limit: int = 5) -> str:
    """Format the first ids for a message: `1, 2, "a", ... (8 in all)`."""
    keys = sorted(keys)
    texts = ["null" if kind == _NULL else repr(v) if kind != _TEXT else f'"{v}"' for kind, v in keys]
    more = f", ... ({len(keys)} in all)" if len(keys) > limit else ""
    return ", ".join(texts[:limit]) + more


def mismatch_hint(unknown: Iterable[Key], known: Mapping[Key, int]) -> str:
    """Return a hint if every unknown id would be known as a string instead of a number, or vice versa."""
    unknown = set(unknown)
    if all(other_kind(key) in known for key in unknown):
        written, expected = ("texts", "numbers") if next(iter(unknown))[0] == _TEXT else ("numbers", "texts")
        return f"They are written as {written}, and as {expected} in the ground truth: write them alike."
    return ""


def shift_hint(used: Iterable[Key], known: Mapping[Key, int]) -> str:
    """Return a hint if all used ids would be known after adding or subtracting one; otherwise empty."""
    used = list(used)
    if any(kind != _NUMBER for kind, _ in used):
        return ""
    for step, file_base, truth_base in ((1, 0, 1), (-1, 1, 0)):
        if all((kind, value + step) in known for kind, value in used):
            sign = "+ 1" if step > 0 else "- 1"
            return (
                f"They look {file_base}-based where the ground truth is {truth_base}-based: "
                f"write id {sign} (labels of a model must be mapped back to the ids of the dataset)."
            )
    return ""


def other_kind(key: Key) -> Key:
    kind, value = key
    if kind == _NUMBER:
        return (_TEXT, str(value))
    if kind == _TEXT:
        try:
            return (_NUMBER, int(value))
        except ValueError:
            return (_NULL, value)
    return (_NULL, value)
