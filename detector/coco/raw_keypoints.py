"""The keypoints of a COCO file as they are written, and what is wrong with them."""

# M annotations, K keypoints of a category

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from detector.coco.annotations import Category
from detector.coco.ragged import gather, offsets
from detector.coco.rules import is_finite_number, shown
from detector.coco.shapes import KeypointColumns

# An object of unknown area is taken for this share of its box, as the tools of CrowdPose do, whose files have
# no areas.
_SHARE_OF_BOX = 0.53
_MOST_POINTS = 1_000_000  # of an object; num_keypoints is compared with 0 alone


class RawKeypoints:
    """The values of `keypoints` and `num_keypoints`, collected chunk by chunk.

    `faults` describes, by row, values that are no keypoints. They are left out.
    """

    def __init__(self) -> None:
        self.faults: dict[int, str] = {}
        self._lengths: list[int] = []  # by annotation, in numbers
        self._numbers: list[np.ndarray] = []
        self._labeled: list[int] = []  # as written; -1: not

    def add(self, values: Sequence[Any], labeled: Sequence[Any]) -> None:
        lists = [value or [] for value in values]
        if not {*map(type, lists)} <= {list} or not {*map(type, chain.from_iterable(lists))} <= {int, float}:
            for row, value in enumerate(lists):
                if not isinstance(value, list) or not all(map(is_finite_number, value)):
                    self.faults[len(self._lengths) + row] = (
                        f"keypoints {shown(value)} is no list of finite numbers [x1, y1, v1, x2, ...]. "
                        "Correct or remove it"
                    )
                    lists[row] = []
        self._numbers.append(np.array([_as_float(number) for number in chain.from_iterable(lists)]))
        self._lengths += map(len, lists)
        self._labeled += [
            min(int(n), _MOST_POINTS) if is_finite_number(n) and n >= 0 else -1 for n in labeled
        ]

    def problems(self, labels: np.ndarray, categories: Sequence[Category]) -> Iterator[tuple[int, str]]:
        """Yield a row and what is wrong with its keypoints; `labels` (M) are indices of categories, or -1."""
        numbers, first = np.concatenate([np.zeros(0), *self._numbers]), offsets(self._lengths)
        for row in np.flatnonzero((labels >= 0) & (np.diff(first) > 0)).tolist():
            category, values = categories[labels[row]], numbers[first[row] : first[row + 1]]
            expected = 3 * len(category.keypoints)
            if len(values) != expected:
                yield row, _wrong_count(len(values), expected, category)
            elif not np.isfinite(values).all():
                yield row, "its keypoints hold a number that is not finite. Correct it"
            elif not np.isin(values[2::3], (0, 1, 2)).all():
                wrong = values[2::3][~np.isin(values[2::3], (0, 1, 2))][0]
                advice = "Write 0 for unlabeled, 1 for hidden, 2 for visible"
                yield row, f"a keypoint has the visibility {wrong:g}. {advice}"

    def columns(
        self,
        rows: np.ndarray,
        *,
        labels: np.ndarray,
        categories: Sequence[Category],
        boxes_xywh: np.ndarray,
        areas: np.ndarray,
    ) -> KeypointColumns:
        """Return the keypoints of `rows`, whose `areas` are NaN or not above 0 where the file has none."""
        written, places = gather(offsets(self._lengths), rows)
        numbers = np.concatenate([np.zeros(0), *self._numbers])[places]
        of_category = np.array([len(category.keypoints) for category in categories], dtype=np.int64)
        first = offsets(of_category[labels])
        points = np.zeros((first[-1], 3))
        points[np.repeat(np.diff(written) > 0, np.diff(first))] = numbers.reshape(-1, 3)
        visible = offsets(points[:, 2] > 0)[first]
        labeled = np.array(self._labeled, dtype=np.int64)[rows]
        known = np.isfinite(areas) & (areas > 0)
        return KeypointColumns(
            points=points,
            first=first,
            labeled=np.where(labeled < 0, np.diff(visible), labeled),
            areas=np.where(known, areas, _SHARE_OF_BOX * boxes_xywh[:, 2] * boxes_xywh[:, 3]),
        )


def _as_float(number: Any) -> float:
    """Return a number of the file as float64; integers that this cannot hold are infinite."""
    try:
        return float(number)
    except OverflowError:
        return np.inf


def _wrong_count(count: int, expected: int, category: Category) -> str:
    named = f'its category "{category.name}" names {expected // 3} keypoints'
    if not expected:
        return f'{named}, it has {count} numbers. Add their names as "keypoints" to the category'
    return (
        f"keypoints has {count} numbers, but {named}: expected {expected}, x, y and visibility of "
        "each. Correct the annotation or the category"
    )
