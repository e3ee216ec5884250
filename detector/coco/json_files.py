"""The reading of JSON files: whole, or only the lists of a COCO file."""

from __future__ import annotations

import codecs
import gc
import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec


class CocoSections(msgspec.Struct):
    """The lists of a COCO file; each element is its JSON text, a view of the file."""

    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


def read_sections(path: Path) -> CocoSections:
    """Read the lists of a COCO file without parsing their elements.

    Raises OSError, ValueError, RecursionError or msgspec.MsgspecError. `load_json` reads what msgspec refuses
    (NaN, halves of surrogate pairs), or explains what is wrong.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    text = memoryview(content)
    return msgspec.json.decode(text[3:] if text[:3] == codecs.BOM_UTF8 else text, type=CocoSections)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Spare the collector millions of lists, a quarter of the time to read them; none is in a circle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def load_json(path: Path, *, what: str) -> Any:
    """Read a JSON file. Raises ValueError that says what was expected if it is missing or malformed."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # reading a pipe without a writer never ends
        raise ValueError(f"{path}: is no regular file; expected a file with {what} (JSON).")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text:
            raise ValueError(f"{path}: the file is empty; expected {what} (JSON).")
        return _parse(text, path, what)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected {what} (JSON).") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; expected a file with {what} (JSON).") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}). Save it as UTF-8 JSON.") from None


def _parse(text: str, path: Path, what: str) -> Any:
    try:
        with no_garbage_collection():
            return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON near line {error.lineno}, column {error.colno}: {error.msg}; expected "
            f"{what}. Was the file cut off? Write it again."
        ) from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; expected {what}.") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise ValueError(f"{path}: holds an integer of more than 4,300 digits; expected {what}.") from None
