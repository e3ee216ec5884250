"""Warnings of images that occur twice, in a split or in training and validation, by name or content."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from detector.coco.annotations import CocoAnnotations
from detector.coco.rules import printable, repeated_files_note

_log = logging.getLogger(__name__)

_EXAMPLES = 3
_MAX_READ = 4000  # files of equal length whose content is compared; takes a second or two
_PART_BYTES = 32_768  # of the start and of the end of a file

_Place = tuple[int, int]  # split (0: training), image
_Item = TypeVar("_Item")


def note_shared_images(train: CocoAnnotations, val: CocoAnnotations) -> None:
    """Warn of files listed more than once or copied in a split, and of images that both splits hold.

    Two files are one image if their paths are equal, or their lengths, starts and ends. The content of the
    first `_MAX_READ` files that have the length of another is compared.
    """
    splits = (train, val)
    paths = {(s, i): path for s, split in enumerate(splits) for i, path in enumerate(_paths(split))}
    for s, split in enumerate(splits):
        _note_repeated_names(split, {place: path for place, path in paths.items() if place[0] == s})
    files: dict[str, list[_Place]] = defaultdict(list)
    for place, path in paths.items():
        files[path].append(place)
    shared = [places for places in files.values() if len({s for s, _ in places}) == 2]
    groups = [[files[path] for path in group] for group in _same_content(list(files))]
    copies: tuple[list[list[_Place]], ...] = ([], [])
    for group in groups:
        places = [place for of_file in group for place in of_file]
        if len({s for s, _ in places}) == 2:
            shared.append(places)
        for s in range(2):
            if sum(of_file[0][0] == s for of_file in group) > 1:
                copies[s].append([of_file[0] for of_file in group if of_file[0][0] == s])
    for split, of_split in zip(splits, copies, strict=True):
        if of_split:
            _note_copies(split, of_split)
    if shared:
        _note_leak(train, val, shared)


def _paths(split: CocoAnnotations) -> list[str]:
    folder = os.path.abspath(split.images_dir)
    return [os.path.normpath(os.path.join(folder, name)) for name in split.file_names]


def _note_repeated_names(split: CocoAnnotations, paths: dict[_Place, str]) -> None:
    groups = [group for group in _grouped(paths, key=paths.__getitem__) if len(group) > 1]
    if groups:
        note = repeated_files_note(len(groups), sum(map(len, groups)), split.file_names[groups[0][0][1]])
        _warn(split.path, note)


def _note_copies(split: CocoAnnotations, groups: list[list[_Place]]) -> None:
    examples = ", ".join(
        " = ".join(f'"{split.file_names[i]}"' for _, i in group[:2]) for group in groups[:_EXAMPLES]
    )
    _warn(
        split.path,
        f"{sum(map(len, groups))} of {len(split)} image files are {len(groups)} images under several names: "
        f"{examples}. Remove the copies unless that is meant.",
    )


def _note_leak(train: CocoAnnotations, val: CocoAnnotations, shared: list[list[_Place]]) -> None:
    in_val = sorted({i for places in shared for s, i in places if s == 1})
    count = "all" if len(in_val) == len(val) else f"{len(in_val)} of"
    examples = ", ".join(f'"{val.file_names[i]}"' for i in in_val[:_EXAMPLES])
    _warn(
        val.path,
        f"{count} {len(val)} validation images are training images of {train.path}, too: {examples}"
        f"{', ...' if len(in_val) > _EXAMPLES else ''}. Their metrics say how well the training was learned "
        "by heart, not how good the detector is. Validate on other images.",
    )


def _same_content(paths: list[str]) -> list[list[str]]:
    """Group different paths with equal content; unreadable files are in no group."""
    lengths = {path: os.stat(path).st_size for path in paths if os.path.isfile(path)}
    candidates = [group for group in _grouped(lengths, key=lengths.__getitem__) if len(group) > 1]
    chosen: list[list[str]] = []
    for group in candidates:
        if sum(map(len, chosen)) + len(group) > _MAX_READ:
            break
        chosen.append(group)
    same: list[list[str]] = []
    for group in chosen:
        digests = {path: digest for path in group if (digest := _digest(path, lengths[path])) is not None}
        same += [part for part in _grouped(digests, key=digests.__getitem__) if len(part) > 1]
    return same


def _digest(path: str, length: int) -> bytes | None:
    try:
        with open(path, "rb") as file:
            start = file.read(_PART_BYTES)
            file.seek(max(0, length - _PART_BYTES))
            return hashlib.blake2b(start + file.read(_PART_BYTES)).digest()
    except OSError:
        return None


def _grouped(items: Iterable[_Item], *, key: Callable[[_Item], Hashable]) -> list[list[_Item]]:
    groups: dict[Hashable, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _warn(path: Path, note: str) -> None:
    _log.warning("%s: %s", path, printable(note))
