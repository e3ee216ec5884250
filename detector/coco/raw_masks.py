"""The masks of a COCO file as they are written, and what is wrong with them."""

# M annotations

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from detector.coco.corners import CornerBuffer
from detector.coco.ragged import offsets
from detector.coco.rle import compress, pixel_counts
from detector.coco.rules import is_finite_number, shown
from detector.coco.shapes import Segmentations

_TOLERANCE_PX = 1.0  # a corner may lie so far beyond its image: some tools count pixels from 1

Problem = tuple[np.ndarray, str]  # a mask (M,), and a message that may contain {width} and {height}


class RawMasks:
    """The values of `segmentation`, collected chunk by chunk.

    `faults` describes, by row, values that are no mask. They are left out, as missing ones and empty lists,
    which some tools write for boxes without a mask.
    """

    def __init__(self) -> None:
        self.faults: dict[int, str] = {}
        self._count = 0
        self._corners = CornerBuffer()
        self._lengths: list[np.ndarray] = []  # of polygons, in numbers
        self._polygons: list[int] = []  # by annotation
        self._rle: list[bytes] = []  # of annotations that have one
        self._rle_rows: list[int] = []
        self._rle_sizes: list[tuple[int, int]] = []

    def add(self, values: Sequence[Any]) -> None:
        """Add values of any kind."""
        lists = _lists(values)
        columns = _polygon_columns(lists)
        if columns is None:
            faults = [_polygon_fault(value) for value in lists]
            self.faults |= {self._count + row: fault for row, fault in enumerate(faults) if fault}
            lists = [[] if fault else value for value, fault in zip(lists, faults, strict=True)]
            columns = _polygon_columns(lists)
            assert columns is not None, "what is wrong was left out"
        self._append(values, lists, *columns)

    def add_numbers(self, values: Sequence[Any]) -> bool:
        """Add values whose lists, if any, are known to be lists of lists of numbers: this is faster.

        Returns False, and adds nothing, if any list is no polygon: `add` says why.
        """
        lists = _lists(values)
        columns = _number_columns([*chain.from_iterable(lists)])
        if columns is not None:
            self._append(values, lists, *columns)
        return columns is not None

    def _append(
        self, values: Sequence[Any], lists: Sequence[list[Any]], corners: np.ndarray, lengths: np.ndarray
    ) -> None:
        self._add_run_lengths(values, self._count)
        self._corners.add(corners)
        self._lengths.append(lengths)
        self._polygons += map(len, lists)
        self._count += len(values)

    def _add_run_lengths(self, values: Sequence[Any], start: int) -> None:
        uncompressed: list[int] = []
        for row, value in enumerate(values, start):
            if value is None or isinstance(value, list):
                continue
            if fault := _run_length_fault(value):
                self.faults[row] = fault
                continue
            counts = value["counts"]
            if isinstance(counts, list):
                uncompressed.append(len(self._rle))
                counts = compress(np.array(counts, np.int64), np.array([0, len(counts)]))[0].tobytes()
            self._rle.append(counts.encode() if isinstance(counts, str) else counts)
            self._rle_rows.append(row)
            self._rle_sizes.append((int(value["size"][0]), int(value["size"][1])))

    def segmentations(self) -> Segmentations:
        """Return the masks of all annotations."""
        lengths = np.concatenate([np.zeros(0, np.int64), *self._lengths])
        bytes_of = np.zeros(self._count, dtype=np.int64)
        bytes_of[self._rle_rows] = [*map(len, self._rle)]
        return Segmentations(
            corners=self._corners.corners(),
            corner_first=offsets(lengths // 2),
            first=offsets(self._polygons),
            rle=np.frombuffer(b"".join(self._rle), dtype=np.uint8),
            rle_first=offsets(bytes_of),
        )

    def problems(self, masks: Segmentations, sizes: np.ndarray) -> Iterator[Problem]:
        """Yield what is wrong with `masks` in images of `sizes`: (height, width) of each one's (M, 2)."""
        known = (sizes > 0).all(axis=1)
        yield (
            masks.has_mask & ~known,
            "its image has no height and width, which masks need. Add them to the list of images",
        )
        yield (
            known & _leave_the_image(masks, sizes),
            (
                "its polygon leaves its {width} x {height} image. Are its corners x, y in pixels of this "
                "image? Clip or correct it"
            ),
        )
        yield from self._run_length_problems(sizes)

    def empty(self, masks: Segmentations) -> Iterator[Problem]:
        """Yield which masks are empty, as those of detections may be and those of objects may not."""
        yield _enclose_nothing(masks), "its polygons enclose nothing. Draw the object, or remove it"
        _, inside = self._pixel_counts
        yield self._marked(inside == 0), "its mask is empty. Draw the object, or remove it"

    @cached_property
    def _pixel_counts(self) -> tuple[np.ndarray, np.ndarray]:
        return pixel_counts(np.frombuffer(b"".join(self._rle), np.uint8), offsets([*map(len, self._rle)]))

    def _marked(self, which: np.ndarray) -> np.ndarray:
        """Return a mask of annotations (M,) from one of those with run lengths."""
        mask = np.zeros(self._count, dtype=bool)
        mask[np.array(self._rle_rows, dtype=np.int64)[which]] = True
        return mask

    def _run_length_problems(self, sizes: np.ndarray) -> Iterator[Problem]:
        rows, own = np.array(self._rle_rows, dtype=np.int64), np.array(self._rle_sizes).reshape(-1, 2)
        total, _ = self._pixel_counts
        other = (own != sizes[rows]).any(axis=1) & (sizes[rows] > 0).all(axis=1)
        yield (
            self._marked(other),
            (
                "the size of its run lengths is not the [{height}, {width}] of its image. Write [height, "
                "width] of the image, and the run lengths of a mask of this size"
            ),
        )
        yield (
            self._marked(total != own.prod(axis=1)),
            (
                'its run lengths do not add up to height x width of their "size": they are cut off or of '
                "another mask. Encode the mask again"
            ),
        )


def _lists(values: Sequence[Any]) -> list[list[Any]]:
    return [value if isinstance(value, list) else [] for value in values]


def _polygon_columns(lists: Sequence[list[Any]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the numbers of all polygons and how many each has; None if any is no polygon."""
    polygons = [*chain.from_iterable(lists)]
    if not {*map(type, polygons)} <= {list}:
        return None
    if not {*map(type, chain.from_iterable(polygons))} <= {int, float}:
        return None
    return _number_columns(polygons)


def _number_columns(polygons: Sequence[list[Any]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the numbers of all polygons and how many each has; None if any has no three corners."""
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    if ((lengths < 6) | (lengths % 2 == 1)).any():
        return None
    try:
        values = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
    except OverflowError:  # an integer that is too large for float64
        return None
    return (values, lengths) if np.isfinite(values).all() else None


def _polygon_fault(polygons: list[Any]) -> str:
    """Return what is wrong with one list of polygons; empty if nothing is."""
    if polygons and all(map(is_finite_number, polygons)):
        return "segmentation is one list of numbers: write a list of polygons, [[x1, y1, x2, y2, ...]]"
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(map(is_finite_number, polygon)):
            return (
                f"segmentation has {shown(polygon)}, expected polygons of finite numbers [x1, y1, x2, y2, "
                "...]. Correct or remove it"
            )
        if len(polygon) == 4:
            return (
                f"segmentation has the four numbers {shown(polygon)}, which pycocotools reads as a box or "
                "not at all. Write three or more corners: [x1, y1, x2, y1, x2, y2, x1, y2] for a box"
            )
        if len(polygon) % 2:
            return (
                f"segmentation has a polygon of {len(polygon)} numbers, an odd count; expected x, y for each "
                "corner. Correct or remove it"
            )
        if len(polygon) < 6:
            points = f"{len(polygon) // 2} points, expected three or more"
            return f"segmentation has a polygon of {points if polygon else 'no points'}. Correct or remove it"
    return ""


def _run_length_fault(value: Any) -> str:
    """Return what is wrong with the form of run lengths; empty if nothing is."""
    if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
        return (
            f"segmentation {shown(value)} is neither a list of polygons nor run lengths with size and "
            "counts. Correct or remove it"
        )
    size, counts = value["size"], value["counts"]
    if type(counts) is str and counts.isascii() and counts and _are_plain(size):
        return ""  # nearly all
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(map(_is_count, size)):
        return f"the size {shown(size)} of its run lengths is not [height, width]. Correct it"
    is_text = isinstance(counts, bytes) or (isinstance(counts, str) and counts.isascii())
    if is_text and counts:
        return ""
    if not isinstance(counts, list) or not counts or not all(map(_is_count, counts)):
        return f"the counts {shown(counts)} of its run lengths are no text and no whole numbers. Correct them"
    return ""


def _are_plain(size: Any) -> bool:
    return type(size) is list and [*map(type, size)] == [int, int] and min(size) >= 0 and max(size) < 2**32


def _is_count(value: Any) -> bool:
    return is_finite_number(value) and value == int(value) and 0 <= value < 2**32


def _extremes(masks: Segmentations) -> tuple[np.ndarray, ...]:
    """Return the annotation, and the lowest and the highest x, y of each polygon."""
    row = np.repeat(np.arange(len(masks.first) - 1), np.diff(masks.first))
    return row, *masks.corners.extremes(masks.corner_first[:-1])


def _leave_the_image(masks: Segmentations, sizes: np.ndarray) -> np.ndarray:
    row, lowest, highest = _extremes(masks)
    beyond = (lowest < -_TOLERANCE_PX) | (highest > sizes[row][:, ::-1] + _TOLERANCE_PX)
    leaves = np.zeros(len(sizes), dtype=bool)
    leaves[row[beyond.any(axis=1)]] = True
    return leaves


def _enclose_nothing(masks: Segmentations) -> np.ndarray:
    """Return whether all polygons of an annotation that has some lie on a line along an axis (M,)."""
    row, lowest, highest = _extremes(masks)
    extends = np.zeros(len(masks.first) - 1, dtype=bool)
    extends[row[(highest > lowest).all(axis=1)]] = True
    return (np.diff(masks.first) > 0) & ~extends
