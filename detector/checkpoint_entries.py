"""Checks of the entries of a checkpoint, which report all problems at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from detector.weights.fit import unusable

_MAX_VALUES, _MAX_DEPTH, _MAX_SHOWN = 100_000, 50, 5


def entry_problems(content: Mapping[Any, Any]) -> list[str]:
    """Return the problems of "detector" and "state_dict", each with the expected and the actual value."""
    entry, state = content["detector"], content["state_dict"]
    problems = [
        f"detector.{name} is missing, expected {expected}"
        if name not in entry
        else f"detector.{name} is {shown(entry[name])}, expected {expected}"
        for name, (fits, expected) in _ENTRIES.items()
        if name not in entry or not fits(entry[name])
    ]
    if not _is_threshold(threshold := entry.get("best_f1_threshold")):  # older files have none
        problems.append(
            f"detector.best_f1_threshold is {shown(threshold)}, expected a number >= 0 and <= 1, or None"
        )
    if not problems and len(entry["class_names"]) != len(entry["category_ids"]):
        problems.append(
            f"detector.class_names has {len(entry['class_names'])} and detector.category_ids "
            f"{len(entry['category_ids'])} entries, expected as many"
        )
    if "epoch_rows" in content and not _are_rows(content["epoch_rows"]):
        problems.append(f"epoch_rows is {shown(content['epoch_rows'])}, expected a list of dicts of numbers")
    return problems or _state_problems(state, entry["weights"])


def _state_problems(state: object, prefix: str) -> list[str]:
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        return [f"state_dict is {shown(state)}, expected tensors by name"]
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not any(name.startswith(prefix) for name in tensors):
        return [f"state_dict has no tensor whose name begins with detector.weights, {prefix!r}"]
    return [f"state_dict: {name} {problem}" for name, problem in unusable(tensors).items()]


def listed(problems: list[str]) -> str:
    """Return the problems as one sentence: their number, and the first few."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    more = ", ..." if len(problems) > _MAX_SHOWN else ""
    return f"{count}: {', '.join(problems[:_MAX_SHOWN])}{more}"


def shown(value: object) -> str:
    """Return a value as text for a message: itself if it is short, else its type."""
    if value is None or isinstance(value, bool | int | float | str):
        text = ascii(value)
        return text if len(text) <= 40 else f"{text[:40]}... ({type(value).__name__})"
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else ""
    return f"a {type(value).__name__}{size}"


def is_plain(value: object) -> bool:
    """Return whether a value is strings, numbers, lists and string-keyed dicts of limited depth and size."""
    stack, count = [(value, 0)], 0
    while stack:
        item, depth = stack.pop()
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:  # also stops on a value that contains itself
            return False
        if isinstance(item, dict):
            stack += [(key, depth + 1) for key in item]
            stack += [(inner, depth + 1) for inner in item.values()]
            if not all(isinstance(key, str) for key in item):
                return False
        elif isinstance(item, list | tuple):
            stack += [(inner, depth + 1) for inner in item]
        elif not (item is None or isinstance(item, bool | float) or _is_int64(item) or _is_text(item)):
            return False
    return True


def _is_text(value: object) -> bool:
    """Return whether a value is a string that can be encoded: without lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_int64(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_threshold(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return value is None or is_number


def _are_names(value: object) -> bool:
    is_list = isinstance(value, list | tuple) and len(value) > 0
    return is_list and all(_is_text(name) for name in value) and len(set(value)) == len(value)  # type: ignore[call-overload,attr-defined,arg-type]


def _are_ids(value: object) -> bool:
    return isinstance(value, list | tuple) and all(_is_int64(one) or _is_text(one) for one in value)


def _are_metrics(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and type(number) in (int, float) for name, number in value.items()
    )


def _are_rows(value: object) -> bool:
    return isinstance(value, list) and all(_are_metrics(row) for row in value)


def _is_config(value: object) -> bool:
    return isinstance(value, dict) and is_plain(value)


_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "class_names": (_are_names, "a list of different texts"),
    "category_ids": (_are_ids, "a list of integers"),
    "config": (_is_config, "a dict of plain values"),
    "weights": (_is_text, "a text"),
    "metrics": (_are_metrics, "a dict of numbers"),
    "epoch": (_is_count, "an integer >= 0"),
    "step": (_is_count, "an integer >= 0"),
}
