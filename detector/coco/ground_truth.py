"""The ground truth of an evaluation."""

# N images, M annotations

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from detector.coco.annotations import CocoAnnotations
from detector.coco.ids import Key, id_key, shown
from detector.coco.rules import no_objects


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Checked annotations, with images and categories numbered from 1 in the order of their ids.

    With these numbers pycocotools breaks ties as it would with the original ids. `annotations` has the images
    in this order; `images` and `categories` (M,) are the numbers of each annotation's. `notes` are for the
    reader of the metrics. `not_sought` (M,) marks objects, no crowds, that need not be found: for keypoints
    those without one. Where training goes on without the masks of some objects, so does `ignore_unmasked`:
    these are regions in which detected masks count neither as right nor as wrong. `sigmas` are the constants
    of keypoint similarity of each class (K), () for a class without keypoints; () if nothing sets them.
    """

    annotations: CocoAnnotations
    notes: tuple[str, ...] = ()
    not_sought: np.ndarray | None = None
    ignore_unmasked: bool = False
    sigmas: tuple[tuple[float, ...], ...] = ()

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
    def ignored(self) -> np.ndarray:
        """Whether each annotation need not be found: crowds and those `not_sought` (M,)."""
        crowd = self.annotations.crowd
        return crowd if self.not_sought is None else crowd | self.not_sought

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
        rows = np.array(numbers, dtype=np.int64) - 1
        return replace(self, annotations=self.annotations.select_images(rows))

    def same_as(self, other: GroundTruth) -> bool:
        """Return whether both have the same images, categories and annotations, wherever they were read."""
        a, b = self.annotations, other.annotations
        columns = ("first", "labels", "boxes_xywh", "areas", "crowd", "sizes")
        return (
            self.image_numbers == other.image_numbers
            and (a.category_ids, a.class_names) == (b.category_ids, b.class_names)
            and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in columns)
            and _same_columns(a.masks, b.masks)
            and _same_columns(a.keypoints, b.keypoints)
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


def _same_columns(a: object, b: object) -> bool:
    """Return whether two records of arrays are equal, or both are None."""
    if a is None or b is None:
        return a is b
    return all(np.array_equal(value, vars(b)[name]) for name, value in vars(a).items())
