"""The annotations of one split as flat arrays."""

# N images, M annotations

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector.coco.image_values import ValueRange
from detector.coco.ragged import gather
from detector.coco.strings import StringTable

if TYPE_CHECKING:
    from detector.coco.shapes import KeypointColumns, Segmentations


@dataclass(frozen=True)
class Category:
    """A class as it is named in the file; `keypoints` are the names of its points, if they were asked for.

    `skeleton` are the pairs of points that a drawing connects, numbered from 1 as in the file, unchecked.
    """

    id: int
    name: str
    supercategory: str
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, repr=False)
class CocoAnnotations:
    """The annotations of a split: images in file order, each with its annotations in file order.

    The annotations of image i are rows `first[i]` to `first[i + 1]` of the annotation columns. Boxes are xywh
    in pixels as in the file (float64, not clipped), w > 0 and h > 0, and overlap their image. `labels` are
    positions in `categories`, which are sorted by id. Crowds are included. Sizes are (height, width) as
    annotated. The file lists `listed_count` annotations, of which `bad_count` were left out as bad.
    `deep_values` are the value ranges of images of more than 8 bits, in large splits of a sample of them.
    `masks` and `keypoints` are None unless a task asked for them.
    """

    path: Path
    images_dir: Path
    categories: tuple[Category, ...]
    image_ids: np.ndarray | StringTable  # (N,) int64
    file_names: StringTable  # relative to images_dir
    sizes: np.ndarray  # (N, 2) int64
    first: np.ndarray  # (N + 1,) int64
    annotation_ids: np.ndarray  # (M,) int64
    labels: np.ndarray  # (M,) int64
    boxes_xywh: np.ndarray  # (M, 4) float64
    areas: np.ndarray  # (M,) float64
    crowd: np.ndarray  # (M,) bool
    listed_count: int = 0
    bad_count: int = 0
    deep_values: tuple[ValueRange, ...] = ()
    masks: Segmentations | None = None
    keypoints: KeypointColumns | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        counts = f"{len(self)} images, {self.object_count} objects, {len(self.categories)} classes"
        return f"CocoAnnotations({self.path}: {counts})"

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.categories)

    @property
    def image_of(self) -> np.ndarray:
        """The position of each annotation's image (M,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    @property
    def crowd_count(self) -> int:
        return int(self.crowd.sum())

    @property
    def object_count(self) -> int:
        """The number of annotations that are not crowds."""
        return len(self.crowd) - self.crowd_count

    @property
    def category_ids(self) -> tuple[int, ...]:
        return tuple(c.id for c in self.categories)

    def image_id(self, index: int) -> int | str:
        """Return the id of image `index` as in the file."""
        value = self.image_ids[index]
        return value if isinstance(value, str) else int(value)

    def image_path(self, index: int) -> Path:
        return self.images_dir / self.file_names[index]

    def rows(self, index: int) -> slice:
        """Return the rows of the annotation columns that belong to image `index`."""
        return slice(int(self.first[index]), int(self.first[index + 1]))

    def training_boxes(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes (n, 4), xyxy float64 clipped to the image, and labels (n,), without crowds."""
        rows = self.rows(index)
        keep = ~self.crowd[rows]
        height, width = self.sizes[index]
        boxes = xywh_to_xyxy(self.boxes_xywh[rows][keep])
        return np.clip(boxes, 0, [width, height, width, height]), self.labels[rows][keep]

    def select_images(self, indices: np.ndarray) -> CocoAnnotations:
        """Select these images, in this order, with their annotations."""
        first, rows = gather(self.first, indices)
        ids = self.image_ids
        return replace(
            self._select_rows(rows),
            image_ids=ids.select(indices) if isinstance(ids, StringTable) else ids[indices],
            file_names=self.file_names.select(indices),
            sizes=self.sizes[indices],
            first=first,
        )

    def _select_rows(self, rows: np.ndarray) -> CocoAnnotations:
        names = ("annotation_ids", "labels", "boxes_xywh", "areas", "crowd")
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in names},
            masks=None if self.masks is None else self.masks.select(rows),
            keypoints=None if self.keypoints is None else self.keypoints.select(rows),
        )

    def of_categories(self, labels: np.ndarray) -> CocoAnnotations:
        """Select these classes (their labels, ascending) and their annotations, of all images."""
        chosen = np.isin(self.labels, labels)
        return replace(
            self._select_rows(np.flatnonzero(chosen)),
            categories=tuple(self.categories[label] for label in labels),
            labels=np.searchsorted(labels, self.labels[chosen]),
            first=np.append(0, np.cumsum(chosen))[self.first],
        )

    def without_category(self, category: Category) -> CocoAnnotations:
        """Remove a class, which no annotation may use."""
        label = self.categories.index(category)
        assert not np.any(self.labels == label), "the category is in use"
        kept = tuple(c for c in self.categories if c != category)
        return replace(self, categories=kept, labels=self.labels - (self.labels > label))


def xywh_to_xyxy(boxes_xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
