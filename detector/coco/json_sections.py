"""A reader of large COCO files that does not hold all objects at once."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any

# Polygons are four fifths of a COCO file and detection does not use them: they are cut out before parsing.
# The run of characters cannot contain a quote or a brace, so it ends inside the object; going back to the
# last "]" then finds the end of the polygons. `"segmentation"` inside a JSON string has an escaped quote
# and does not match.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[^"{}]*\]')
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_WHITESPACE = re.compile(r"[ \t\n\r]*")


class _NotAListError(Exception):
    """The member of this name should be a list."""


def read_sections(path: Path, *, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the members of the JSON object in `path`: (key, value), or (key, element) for each list element.

    An empty list is yielded once as (key, []). Polygons are null. Raises ValueError, naming the file, if it
    is not a single JSON object, or if one of the members named in `lists` is not a list.
    """
    text = _text_without_polygons(path)
    if text[_skip(text, 0) : _skip(text, 0) + 1] == "[":
        raise ValueError(
            f"{path}: holds a list, expected an object with images, annotations and categories. A "
            "list is a COCO results file (detections): pass the ground truth here."
        )
    try:
        yield from _members(text, lists)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON near line {error.lineno}, column {error.colno} (counted without "
            f"polygons): {error.msg}. Was the file cut off? Write it again."
        ) from None
    except _NotAListError as error:
        raise ValueError(f'{path}: "{error}" must be a list.') from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply to be a COCO file.") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise ValueError(f"{path}: holds an integer of more than 4,300 digits, no COCO file does.") from None


def _text_without_polygons(path: Path) -> str:
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty. Expected a COCO annotation file (JSON).")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _POLYGONS.sub(b'"segmentation":null', content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}). Save it as UTF-8 JSON.") from None


def _skip(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    assert match is not None
    return match.end()


def _expect(text: str, at: int, characters: str) -> int:
    at = _skip(text, at)
    if at >= len(text) or text[at] not in characters:
        raise json.JSONDecodeError(f"expected one of {' '.join(characters)}", text, min(at, len(text)))
    return at


def _members(text: str, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
    decode = json.JSONDecoder().raw_decode
    at = _skip(text, 0)
    at = _skip(text, _expect(text, at, "{") + 1)
    while text[at : at + 1] != "}":
        key, at = decode(text, _expect(text, at, '"'))
        at = _skip(text, _expect(text, at, ":") + 1)
        if text[at : at + 1] == "[":
            at = yield from _elements(text, at, key, decode)
        elif key in lists:
            raise _NotAListError(key)
        else:
            value, at = decode(text, at)
            yield key, value
        at = _expect(text, at, ",}")
        if text[at] == ",":
            at = _expect(text, at + 1, '"')
    if _skip(text, at + 1) != len(text):
        raise json.JSONDecodeError("extra data after the object", text, at + 1)


def _elements(text: str, at: int, key: str, decode: Any) -> Generator[tuple[str, Any], None, int]:
    """Yield the elements of the list that starts at `at`; return the position after it."""
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        yield key, []
        return at + 1
    while True:
        value, at = decode(text, at)
        yield key, value
        comma = _COMMA.match(text, at)
        if comma is None:
            return _expect(text, at, "]") + 1
        at = comma.end()
