"""The ground truth of an evaluation, read from a file or dictionary, or taken from a dataset."""

# N images, M annotations

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detector.coco.annotations import CocoAnnotations
from detector.coco.categories import read_categories
from detector.coco.columns import RawCoco, columns_of, read_columns
from detector.coco.findings import Policy, Problems
from detector.coco.ids import Key, id_key, shown
from detector.coco.image_entries import declared_images, image_ids
from detector.coco.rules import no_objects, printable, repeated_files_note
from detector.coco.usable import usable_annotations
from detector.option_types import OnBadBox

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Checked annotations, with images and categories numbered from 1 in the order of their ids.

    With these numbers pycocotools breaks ties as it would with the original ids. `annotations` has the images
    in this order; `images` and `categories` (M,) are the numbers of each annotation's. `notes` are for the
    reader of the metrics.
    """

    annotations: CocoAnnotations
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, annotations: CocoAnnotations, notes: tuple[str, ...] = ()) -> GroundTruth:
        """Sort the images of `annotations` by id."""
        ids = annotations.image_ids
        order = np.argsort(ids if isinstance(ids, np.ndarray) else np.array([*ids]), kind="stable")
        return cls(annotations.select_images(order), notes)

    @property
    def num_images(self) -> int:
        return len(self.annotations)

    @cached_property
    def images(self) -> np.ndarray:
        return self.annotations.image_of + 1

    @cached_property
    def categories(self) -> np.ndarray:
        return self.annotations.labels + 1

    @cached_property
    def image_numbers(self) -> dict[Key, int]:
        ids = self.annotations.image_ids
        keys = map(id_key, ids.tolist() if isinstance(ids, np.ndarray) else ids)
        return {key: number for number, key in enumerate(keys, start=1)}

    @cached_property
    def category_numbers(self) -> dict[Key, int]:
        return {id_key(id_): number for number, id_ in enumerate(self.annotations.category_ids, start=1)}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The name of each category; if two share one, the id is added to it."""
        names = self.annotations.class_names
        count = Counter(names)
        return tuple(
            name if count[name] == 1 else f"{name} (id {shown([key])})"
            for name, key in zip(names, self.category_numbers, strict=True)
        )

    @cached_property
    def file_names(self) -> tuple[str, ...]:
        """The file name of each image, empty if it has none."""
        return tuple(self.annotations.file_names)

    def of_images(self, ids: Collection[Any]) -> GroundTruth:
        """Select the images with these original ids."""
        numbers = sorted(self.image_numbers[id_key(id_)] for id_ in set(ids))
        return GroundTruth(self.annotations.select_images(np.array(numbers, dtype=np.int64) - 1), self.notes)

    def same_as(self, other: GroundTruth) -> bool:
        """Return whether both have the same images, categories and annotations, wherever they were read."""
        a, b = self.annotations, other.annotations
        columns = ("first", "labels", "boxes_xywh", "areas", "crowd", "sizes")
        return (
            self.image_numbers == other.image_numbers
            and a.categories == b.categories
            and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in columns)
        )

    def require_objects(self) -> None:
        """Raise ValueError if there is no object to score against: every metric would be undefined."""
        if self.annotations.object_count:
            return
        why = no_objects(
            listed=self.annotations.listed_count,
            crowds=self.annotations.crowd_count,
            dropped=self.annotations.bad_count,
            option="evaluation.on_bad_box=drop",
        )
        raise ValueError(f"{self.annotations.path}: no object to evaluate against: {why}")


def read_ground_truth(
    truth: Path | str | dict[str, Any], *, on_bad_box: OnBadBox = "error", source: str = "ground truth"
) -> GroundTruth:
    """Read and check a COCO file or dictionary; `source` names a dictionary in messages.

    The rules for annotations are those of training data (`read_coco`). Images need no file name and no size.

    Raises:
        ValueError: naming every bad image, category and annotation. With `on_bad_box="drop"` bad annotations
            are left out, with a warning that lists them.
    """
    raw = columns_of(truth, source=source) if isinstance(truth, dict) else read_columns(Path(truth))
    problems = Problems()
    categories = read_categories(raw.categories, problems.fatal)
    ids = image_ids(raw, problems.fatal)
    annotations = usable_annotations(
        raw,
        ids,
        images=declared_images(raw, ids, problems.fatal),
        images_dir=Path(raw.source).parent,
        categories=categories,
        problems=problems,
        policy=Policy(skip=False, drop=on_bad_box == "drop", drop_option="evaluation.on_bad_box"),
    )
    _note_repeated_files(annotations)
    return GroundTruth.of(annotations, _notes(raw))


def _note_repeated_files(annotations: CocoAnnotations) -> None:
    count = Counter(name for name in annotations.file_names if name)
    if repeated := [name for name, times in count.items() if times > 1]:
        note = repeated_files_note(len(repeated), sum(count[name] for name in repeated), repeated[0])
        _log.warning("%s: %s", annotations.path, printable(note))


def _notes(raw: RawCoco) -> tuple[str, ...]:
    if not raw.score_count:
        return ()
    return (
        f"{raw.source}: {raw.score_count} of {len(raw.crowd)} annotations have a score, as predictions have. "
        "They count as objects; predictions belong into predictions=.",
    )
