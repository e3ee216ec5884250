"""The ids of COCO files: any JSON scalar, compared by value and by kind."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

# An id as a dictionary key: numbers sort before strings, and neither `True == 1` nor `"7" == 7`.
Key = tuple[int, Any]

NUMBER, TEXT, _BOOLEAN, _NULL = range(4)


def id_key(value: Any) -> Key:
    """Return the key of an id that passes `is_id`. Keys sort like ids in pycocotools: by value, by letter."""
    if isinstance(value, bool):
        return (_BOOLEAN, value)
    if isinstance(value, str):
        return (TEXT, value)
    return (_NULL, 0) if value is None else (NUMBER, value)


def is_id(value: Any) -> bool:
    """Return whether a value can be an id: a JSON scalar, but not the NaN that Python's JSON accepts."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (int, str))


def shown(keys: Iterable[Key], *, limit: int = 5) -> str:
    """Format the first ids for a message: `1, 2, "a", ... (8 in all)`."""
    keys = sorted(keys)
    texts = ["null" if kind == _NULL else repr(v) if kind != TEXT else f'"{v}"' for kind, v in keys]
    more = f", ... ({len(keys)} in all)" if len(keys) > limit else ""
    return ", ".join(texts[:limit]) + more


def other_kind(key: Key) -> Key:
    kind, value = key
    if kind == NUMBER:
        return (TEXT, str(value))
    if kind == TEXT:
        try:
            return (NUMBER, int(value))
        except ValueError:
            return (_NULL, value)
    return (_NULL, value)
