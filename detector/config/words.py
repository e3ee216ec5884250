"""Repair of typed overrides for Hydra's grammar: special characters, as in paths, are quoted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Sweep
from hydra.errors import HydraException

from detector.quoting import quoted

# Options whose value is one string, a path or a name; tests/test_words.py compares with the signatures.
TEXT_KEYS = frozenset(
    {
        "annotations",
        "checkpoint",
        "data.root",
        "data.train.annotations",
        "data.train.images",
        "data.val.annotations",
        "data.val.images",
        "model.backbone.weights",
        "model.weights",
        "name",
        "output_dir",
        "predictions",
        "runs_dir",
        "source",
        "training.resume",
    }
)
IMAGE_SIZE = "data.image_size"  # a number is the longest side that an image is resized to
_LISTS = {"compare": {"predictions"}}  # options that take several strings in a verb, and one elsewhere
_KEY = re.compile(r"(?P<sign>\+{0,2})(?P<key>[^=+~]+)=(?P<value>.*)", re.DOTALL)
_PATHS_HAVE = re.compile(r"[/.\\]")


def takes_text(verb: str, key: str) -> bool:
    """Return whether the option takes one string: a path or a name."""
    return key in TEXT_KEYS - _LISTS.get(verb, set())


def repaired(word: str, *, verb: str, multirun: bool) -> str:
    """Quote the value of an override if Hydra would misread it; return other overrides unchanged.

    A value that cannot be parsed is quoted, in lists and sweeps each element by itself. If the option takes a
    string, values that would become a number, a list or, without -m, a sweep are quoted too. `~/x` stays: its
    error explains the home folder.
    """
    match = _KEY.fullmatch(word)
    if match is None or not match["value"] or match["value"].startswith("~"):
        return word
    value = match["value"]
    if match["key"] == IMAGE_SIZE and re.fullmatch(r"\d+(,\d+)*", value):
        better = ",".join(f"{{min_size:{side},max_size:{side}}}" for side in value.split(","))
    elif takes_text(verb, match["key"]):
        better = _sweep(value, _text) if multirun else _text(value)
    elif _parsed(value) is None:
        better = _sweep(value, _element) if multirun else _element(value)
    else:
        return word
    return f"{match['sign']}{match['key']}={better}"


def _text(value: str) -> str:
    """Repair the value of an option that takes a string."""
    parsed = _parsed(value)
    if parsed is None or isinstance(parsed, bool | int | float | list | dict):
        return quoted(value)
    if isinstance(parsed, Sweep):  # "x,y": a forgotten -m, unless it can only be a path
        is_path = os.path.exists(value) or _PATHS_HAVE.search(value)
        return quoted(value) if is_path and getattr(parsed, "simple_form", False) else value
    if isinstance(parsed, str) and parsed != value and os.path.exists(value):  # has backslashes or blanks
        return quoted(value)
    return value


def _element(value: str) -> str:
    """Repair a value that may be a list or mapping, whose elements are quoted individually."""
    if _parsed(value) is not None:
        return value
    inner = value[1:-1]
    if value.startswith("[") and value.endswith("]"):
        better = f"[{','.join(_element(part) for part in _split(inner))}]"
    elif value.startswith("{") and value.endswith("}"):
        pairs = [part.partition(":") for part in _split(inner)]
        better = "{" + ",".join(f"{key}:{_element(item.strip())}" for key, _, item in pairs) + "}"
    else:
        return quoted(value)
    return better if _parsed(better) is not None else quoted(value)


def _sweep(value: str, element: Any) -> str:
    """Repair each value of a sweep by `element`."""
    parsed = _parsed(value)
    if isinstance(parsed, Sweep):
        return value
    parts = list(_split(value))
    return ",".join(element(part) for part in parts) if len(parts) > 1 else element(value)


def _split(text: str) -> Iterator[str]:
    """Yield the parts between commas outside brackets and quotes. A quote inside a word is a letter."""
    part, depth, quote = "", 0, ""
    for character in text:
        if quote:
            if character == quote and not part.endswith("\\"):
                quote = ""
        elif character in "'\"" and not part.strip(" [{:"):
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and depth == 0:
            yield part.strip()
            part = ""
            continue
        part += character
    yield part.strip()


_NULL = object()


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _parsed(value: str) -> Any:
    """Parse a value by Hydra's grammar: a QuotedString, string, number, list, sweep ...; None if invalid."""
    try:
        parsed = _parser().parse_override(f"x={value}")._value
    except HydraException:
        return None
    return _NULL if parsed is None else parsed
