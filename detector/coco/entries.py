"""Checks of the entries in the lists of images and categories, without the image files."""

# N images

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector.coco.annotations import Category
from detector.coco.columns import Entry, RawCoco, id_array
from detector.coco.findings import Findings
from detector.coco.image_values import ValueRange
from detector.coco.rules import is_encodable, printable, shown

Problem = tuple[np.ndarray, Callable[[int], str]]  # a mask (N,), and a message for one image


@dataclass(frozen=True)
class CheckedImages:
    """The result of checking images: which are bad, and the (height, width) their annotations refer to.

    `turned` counts images whose EXIF orientation is applied though the declared size does not decide it.
    `names` are the files' paths relative to the folder, even if the annotation file writes them differently.
    `values` are the value ranges of images of more than 8 bits, in large splits of a sample of them.
    """

    bad: np.ndarray  # (N,) bool
    sizes: np.ndarray  # (N, 2) int64; 0 for bad images and unknown sizes
    names: list[Any]
    turned: int = 0
    values: tuple[ValueRange, ...] = ()


def image_ids(raw: RawCoco, fatal: Findings) -> np.ndarray:
    """Return the ids (N,), int64 or strings; a mixture goes to `fatal`."""
    kinds = {type(i) for i in raw.image_ids}
    if str in kinds and len(kinds - {type(None)}) > 1:
        fatal.note("some image ids are texts and some are numbers. Make all of them integers.")
    return id_array(raw.image_ids) if raw.image_ids else np.zeros(0, np.int64)


def read_categories(
    entries: Sequence[Entry], fatal: Findings, *, with_keypoints: bool = False
) -> tuple[Category, ...]:
    """Return the categories sorted by id, `with_keypoints` if asked for; problems go to `fatal`."""
    kept: dict[int, Category] = {}
    for position, entry in enumerate(entries):
        id_, name = entry.id, entry.name
        if type(id_) is not int or abs(id_) >= 2**63 or not isinstance(name, str) or not name:
            fatal.note(
                f"category at position {position}: id {shown(id_)}, name {shown(name)}. Give an integer id "
                "below 2 to the power of 63 and a name."
            )
        elif not is_encodable(name):
            fatal.note(
                f"category id {id_}: its name {shown(name)} holds half of a surrogate pair, which is no text."
                " Correct it."
            )
        elif id_ in kept:
            fatal.note(f"category id {id_} is listed twice. Make category ids unique.")
        else:
            parent = printable(entry.supercategory) if isinstance(entry.supercategory, str) else ""
            kept[id_] = Category(id_, name, parent)
            if with_keypoints and entry.keypoints:
                kept[id_] = _with_keypoints(kept[id_], entry, fatal)
    if not entries:
        fatal.note('"categories" is empty. List every class with an id and a name.')
    return tuple(kept[i] for i in sorted(kept))


def _with_keypoints(category: Category, entry: Entry, fatal: Findings) -> Category:
    names = entry.keypoints
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        fatal.note(
            f'category id {category.id} "{category.name}": its keypoints {shown(names)} are no list of '
            'names. Write ["nose", "left_eye", ...].'
        )
        return category
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        fatal.note(
            f'category id {category.id} "{category.name}": its keypoints name {shown(repeated[0])} '
            f"{names.count(repeated[0])} times. Give each keypoint a name of its own."
        )
        return category
    return replace(category, keypoints=tuple(map(printable, names)), skeleton=_skeleton(entry.skeleton))


def _skeleton(value: Any) -> tuple[tuple[int, int], ...]:
    """Return the pairs of a skeleton as they are, and (0, 0) for what is no pair of numbers."""
    pairs = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(
        (pair[0], pair[1])
        if isinstance(pair, list) and len(pair) == 2 and all(type(place) is int for place in pair)
        else (0, 0)
        for pair in pairs
    )


def declared_images(raw: RawCoco, ids: np.ndarray, fatal: Findings) -> CheckedImages:
    """Return the images as they are declared, for annotations whose files are not opened.

    Names and sizes may be missing. Problems go to `fatal`.
    """
    if not len(ids):
        fatal.note('"images" is empty. List every image with an id.')
    for which, why in _id_problems(raw, ids):
        for i in np.flatnonzero(which).tolist():
            fatal.note(f"{describe_image(raw, i)}: {why(i)}")
    names = [name if isinstance(name, str) else "" for name in raw.file_names]
    return CheckedImages(np.zeros(len(ids), dtype=bool), declared_sizes(raw), names)


def declared_sizes(raw: RawCoco) -> np.ndarray:
    """Return the declared (height, width) of each image (N, 2) int64, 0 if it is missing or unusable."""
    return np.array([_clean_size(*s) for s in raw.sizes], dtype=np.int64).reshape(-1, 2)


def entry_problems(raw: RawCoco, ids: np.ndarray, sizes: np.ndarray) -> Iterator[Problem]:
    """Yield the problems of entries whose files will be opened."""
    yield from _id_problems(raw, ids)
    names = raw.file_names
    yield _mask(not isinstance(n, str) or not n for n in names), lambda i: "has no file_name. Name the file."
    yield (
        _mask(isinstance(n, str) and not is_encodable(n) for n in names),
        lambda i: "its file_name holds half of a surrogate pair, which is no text. Correct it.",
    )
    declared = _mask(h is not None or w is not None for h, w in raw.sizes)
    yield (
        declared & (sizes[:, 0] == 0),
        lambda i: "height {}, width {}. Write pixels, or leave both out.".format(*map(shown, raw.sizes[i])),
    )


def describe_image(raw: RawCoco, index: int) -> str:
    """Return the id and the file name of an image for a message."""
    name, image = raw.file_names[index], f"image {shown(raw.image_ids[index])}"
    return image if name is None else f'{image} ("{name if isinstance(name, str) else shown(name)}")'


def _id_problems(raw: RawCoco, ids: np.ndarray) -> Iterator[Problem]:
    yield (
        _mask(not _is_id(i) for i in raw.image_ids),
        lambda i: "has no id that is an integer below 2 to the power of 63. Give it one.",
    )
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    yield counts[inverse] > 1, lambda i: "another image has the same id. Make image ids unique."


def _mask(flags: Iterator[bool]) -> np.ndarray:
    return np.fromiter(flags, dtype=bool)


def _clean_size(height: Any, width: Any) -> tuple[int, int]:
    return (int(height), int(width)) if _is_side(height) and _is_side(width) else (0, 0)


def _is_id(value: Any) -> bool:
    return abs(value) < 2**63 if type(value) is int else isinstance(value, str) and is_encodable(value)


def _is_side(value: Any) -> bool:
    if type(value) is int:
        return 1 <= value < 2**31
    return type(value) is float and math.isfinite(value) and 1 <= value < 2**31 and value.is_integer()
