"""Checks of the images of a split before training."""

# N images

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from detector.coco.columns import RawCoco
from detector.coco.entries import CheckedImages, declared_sizes, describe_image, entry_problems
from detector.coco.file_names import explain_lost, locate_files, other_reading
from detector.coco.findings import Findings
from detector.coco.image_errors import DamagedImageError, ImageError, MissingImageError
from detector.coco.image_values import OpenRangeError, find_range, range_override
from detector.coco.images import ImageNotes, Inspection, ReadOptions, inspect_image
from detector.option_types import CheckImages, FileNames

_log = logging.getLogger(__name__)


_CHUNK = 256
_MEASURED = 1_000  # images whose values are measured, spread over the split
_SHOW_PROGRESS_FROM = 5_000  # images; fewer take only a moment


@dataclass(frozen=True)
class ImageChecks:
    """The options for checking and reading the images of a split.

    `how`: "headers" compares each file's size with the declared one and looks for its end, which finds
    missing, truncated, swapped and non-image files in some 30 microseconds each; "decode" decodes it, which
    also finds damage inside a PNG and the like (JPEG decoders hide most of it). `folder_option` is the
    override that names the image folder, for messages.
    """

    how: CheckImages = "headers"
    reading: ReadOptions = ReadOptions()  # noqa: RUF009 (frozen)
    file_names: FileNames = "paths"
    folder_option: str = "images_dir"


def check_images(
    raw: RawCoco,
    ids: np.ndarray,
    *,
    folder: Path,
    findings: Findings,
    checks: ImageChecks,
    near: Sequence[Path],
) -> CheckedImages:
    """Check entries and files, opening every file; problems go to `findings`.

    `near` are folders other than `folder` in which missing files are searched.
    """
    names = list(raw.file_names)
    bad = np.zeros(len(names), dtype=bool)
    sizes = declared_sizes(raw)

    def report(which: np.ndarray, why: Callable[[int], str]) -> None:
        which = which & ~bad
        findings.add(np.flatnonzero(which), lambda i: f"{describe_image(raw, i)}: {why(i)}")
        bad[:] |= which

    def mask(flags: Iterator[bool]) -> np.ndarray:
        return np.fromiter(flags, dtype=bool, count=len(names))

    for which, why in entry_problems(raw, ids, sizes):
        report(which, why)
    located = locate_files(names, folder=folder, indices=np.flatnonzero(~bad), how=checks.file_names)
    report(
        mask(i in located.shared for i in range(len(names))),
        lambda i: (
            f'another file_name means "{located.shared[i]}" too (data.file_names=base). Write the folders.'
        ),
    )
    open_files = np.array([i for i in np.flatnonzero(~bad) if i not in located.lost], dtype=np.int64)
    results = dict(_inspect(folder, names, sizes, indices=open_files, checks=checks))
    inspections = {i: r for i, r in results.items() if isinstance(r, Inspection)}
    for i, inspection in inspections.items():
        sizes[i] = inspection.size
    errors = {i: r for i, r in results.items() if isinstance(r, ImageError)}
    failures = {i: error for i, error in errors.items() if not isinstance(error, MissingImageError)}
    lost = {**located.lost, **dict.fromkeys(errors.keys() - failures.keys(), False)}
    explained = explain_lost(
        {i: raw.file_names[i] for i in sorted(lost)},
        leaving={i for i, leaves in lost.items() if leaves},
        total=len(names),
        index=located.index,
        option=checks.folder_option,
        near=near,
    )
    report(mask(i in lost for i in range(len(names))), lambda i: explained.texts[i])
    report(mask(i in failures for i in range(len(names))), lambda i: _failure_text(failures[i]))
    findings.remedies += explained.remedies
    findings.remedies += _range_remedies([e for e in failures.values() if isinstance(e, OpenRangeError)])
    notes = [inspection.notes for inspection in inspections.values()]
    _log_notes(folder, raw.file_names, names, notes, located.differences)
    sizes[bad] = 0
    turned = sum(inspection.is_guess for inspection in inspections.values())
    return CheckedImages(bad, sizes, names, turned, tuple(n.values for n in notes if n.values is not None))


def _failure_text(error: ImageError) -> str:
    remove = " Restore it, or remove the image from the annotations."
    return f"{error}{remove if isinstance(error, DamagedImageError) else ''}"


def _range_remedies(errors: Sequence[OpenRangeError]) -> Iterator[str]:
    if errors:
        proposed = find_range([error.values for error in errors])
        yield (
            f"{len(errors)} images have values without a black and white of their own. Say them for all: "
            f"{range_override(proposed, option='data.image_range')}, or data.image_range=auto."
        )


def _log_notes(
    folder: Path,
    written: Sequence[Any],
    names: Sequence[Any],
    notes: Sequence[ImageNotes],
    differences: Sequence[str],
) -> None:
    for difference, count in Counter(differences).items():
        _log.warning(
            "%s: %d files are taken for names that differ by %s (data.file_names=base).",
            folder,
            count,
            difference,
        )
    other = [i for i, name in enumerate(names) if name != written[i]]
    if other and not differences:
        first = f'"{written[other[0]]}" is "{names[other[0]]}"'
        _log.info("%s: %d file names are written otherwise, as %s.", folder, len(other), first)
    if frames := sum(n.has_frames for n in notes):
        _log.warning("%s: %d images have several frames or pages: the first of each is read.", folder, frames)


def _inspect(
    folder: Path, names: list[Any], sizes: np.ndarray, *, indices: np.ndarray, checks: ImageChecks
) -> Iterator[tuple[int, Inspection | ImageError]]:
    """Inspect each file, or yield why it cannot be used. Threads hide the latency of a slow disk.

    A name whose file is found by another reading of it is replaced in `names`.
    """
    measured = set(np.linspace(0, len(names) - 1, min(len(names), _MEASURED)).astype(int).tolist())

    def one(i: int) -> Inspection:
        return inspect_image(
            f"{folder}/{names[i]}",
            declared_size=(int(sizes[i, 0]), int(sizes[i, 1])) if sizes[i, 0] else None,
            decode=checks.how == "decode",
            options=checks.reading,
            measure_values=i in measured,
        )

    def result(i: int) -> Inspection | ImageError:
        try:
            try:
                return one(i)
            except MissingImageError:
                other = other_reading(names[i], folder)
                if other is None:
                    raise
                names[i] = other
                return one(i)
        except ImageError as error:
            return error

    def chunk(start: int) -> list[tuple[int, Inspection | ImageError]]:
        return [(int(i), result(int(i))) for i in indices[start : start + _CHUNK]]

    console = Console(stderr=True)
    quiet = len(indices) < _SHOW_PROGRESS_FROM or not console.is_terminal
    starts = range(0, len(indices), _CHUNK)
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        results = pool.map(chunk, starts)
        label = f"Checking images of {folder}"
        for part in track(results, label, total=len(starts), console=console, disable=quiet, transient=True):
            yield from part
