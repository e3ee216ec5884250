"""Checks of the images of a split, before any is trained on."""

# N images

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from ..annotation_rules import is_encodable, shown
from .columns import RawCoco
from .findings import Findings
from .images import DamagedImageError, ImageError, Inspection, MissingImageError, inspect_image

CheckImages = Literal["headers", "decode"]

_CHUNK = 256
_SHOW_PROGRESS_FROM = 5_000  # images; fewer are done in a moment


@dataclass(frozen=True)
class CheckedImages:
    """Which images cannot be used, and the (height, width) that their annotations refer to.

    `turned` counts images whose EXIF orientation is applied though the declared size does not decide on it.
    """

    bad: np.ndarray  # (N,) bool
    sizes: np.ndarray  # (N, 2) int64; 0 for bad images
    turned: int


def check_images(
    raw: RawCoco, ids: np.ndarray, *, folder: Path, found: Findings, how: CheckImages
) -> CheckedImages:
    """Check entries and files; problems go to `found`.

    Every file is opened: "headers" compares its size with the declared one and looks for its end, which
    finds missing, truncated, swapped and non-image files in some 30 microseconds each; "decode" decodes it,
    which also finds damage inside a PNG and the like (a JPEG decoder papers over most of it).
    """
    names = raw.file_names
    bad = np.zeros(len(names), dtype=bool)
    sizes = np.array([_clean_size(*s) for s in raw.sizes], dtype=np.int64).reshape(-1, 2)

    def report(which: np.ndarray, why: Callable[[int], str]) -> None:
        which = which & ~bad
        found.add(np.flatnonzero(which), lambda i: f"{describe_image(raw, i)}: {why(i)}")
        bad[:] |= which

    def mask(flags: Iterator[bool]) -> np.ndarray:
        return np.fromiter(flags, dtype=bool, count=len(names))

    report(
        mask(not _is_id(i) for i in raw.image_ids),
        lambda i: "has no id that is an integer below 2 to the power of 63. Give it one.",
    )
    report(_duplicated(ids), lambda i: "another image has the same id. Make image ids unique.")
    report(mask(not isinstance(n, str) or not n for n in names), lambda i: "has no file_name. Name the file.")
    report(
        mask(isinstance(n, str) and not is_encodable(n) for n in names),
        lambda i: "its file_name holds half of a surrogate pair, which is no text. Correct it.",
    )
    report(
        mask(isinstance(n, str) and leaves_folder(n) for n in names),
        lambda i: f"its file_name leaves the image folder {folder}. Use a path relative to that folder.",
    )
    declared = mask(h is not None or w is not None for h, w in raw.sizes)
    report(
        declared & (sizes[:, 0] == 0),
        lambda i: "height {}, width {}. Write pixels, or leave both out.".format(*map(shown, raw.sizes[i])),
    )
    failures: dict[int, str] = {}
    turned = 0
    for i, result in _inspect(folder, names, sizes, indices=np.flatnonzero(~bad), how=how):
        if isinstance(result, str):
            failures[i] = result
        else:
            sizes[i] = result.size
            turned += result.is_guess
    report(mask(i in failures for i in range(len(names))), lambda i: failures[i])
    sizes[bad] = 0
    return CheckedImages(bad, sizes, turned)


def describe_image(raw: RawCoco, index: int) -> str:
    """The id and the file name of an image, for a message."""
    name = raw.file_names[index]
    return f'image {shown(raw.image_ids[index])} ("{name if isinstance(name, str) else shown(name)}")'


def _missing(folder: Path, name: str) -> str:
    """Where it should be; and where it is, if file names count from the folder above."""
    above = os.path.exists(folder.parent / name) if "\0" not in name else False
    if above:
        return f"no such file in {folder}, but in {folder.parent}: give that as data.train.images (or val)."
    hint = " Folders are separated by / in file names." if "\\" in name else ""
    return f"no such file in {folder}. Add it, or correct data.root or the file_name.{hint}"


def _clean_size(height: Any, width: Any) -> tuple[int, int]:
    return (int(height), int(width)) if _is_side(height) and _is_side(width) else (0, 0)


def _is_id(value: Any) -> bool:
    return abs(value) < 2**63 if type(value) is int else isinstance(value, str) and is_encodable(value)


def _is_side(value: Any) -> bool:
    if type(value) is int:
        return 1 <= value < 2**31
    return type(value) is float and math.isfinite(value) and 1 <= value < 2**31 and value.is_integer()


def _duplicated(ids: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def leaves_folder(name: str) -> bool:
    """Whether a file name is absolute (on any system) or climbs out of the folder it is relative to."""
    if ".." not in name and ":" not in name and name[:1] not in ("/", "\\"):
        return False
    path = os.path.normpath(name.replace("\\", "/"))
    has_drive = len(name) > 2 and name[1] == ":" and name[2] in "/\\"
    return has_drive or path == ".." or path.startswith(("../", "/"))


def _inspect(
    folder: Path, names: list[Any], sizes: np.ndarray, *, indices: np.ndarray, how: CheckImages
) -> Iterator[tuple[int, Inspection | str]]:
    """What each file is, or why it cannot be used. Threads hide the latency of a slow disk."""

    def one(i: int) -> Inspection | str:
        declared = (int(sizes[i, 0]), int(sizes[i, 1])) if sizes[i, 0] else None
        try:
            return inspect_image(f"{folder}/{names[i]}", declared_size=declared, decode=how == "decode")
        except MissingImageError:
            return _missing(folder, names[i])
        except DamagedImageError as error:
            return f"{error} Restore it, or remove the image from the annotations."
        except ImageError as error:
            return str(error)

    def chunk(start: int) -> list[tuple[int, Inspection | str]]:
        return [(int(i), one(int(i))) for i in indices[start : start + _CHUNK]]

    console = Console(stderr=True)
    quiet = len(indices) < _SHOW_PROGRESS_FROM or not console.is_terminal
    starts = range(0, len(indices), _CHUNK)
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        results = pool.map(chunk, starts)
        label = f"Checking images of {folder}"
        for part in track(results, label, total=len(starts), console=console, disable=quiet, transient=True):
            yield from part
