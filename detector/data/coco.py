"""A strict reader of COCO annotation files into flat arrays."""

# N images, M annotations

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .columns import RawCoco, id_array, read_columns
from .findings import Findings, settle
from .strings import StringTable

_log = logging.getLogger(__name__)

OnBadBox = Literal["error", "drop"]
OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True)
class Category:
    """A class as the file names it."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True)
class CocoAnnotations:
    """One split: images in file order, their annotations beside each other in file order.

    The annotations of image i are rows `first[i]` to `first[i + 1]` of the annotation columns. Boxes are xywh
    in pixels as the file has them (float64, not clipped), w > 0 and h > 0, and overlap their image. `labels`
    are positions in `categories`, which are sorted by id. Crowds are included. Sizes are (height, width) as
    annotated.
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

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        return tuple(c.id for c in self.categories)

    def image_id(self, index: int) -> int | str:
        """The id of image `index` as the file has it."""
        value = self.image_ids[index]
        return value if isinstance(value, str) else int(value)

    def image_path(self, index: int) -> Path:
        return self.images_dir / self.file_names[index]

    def rows(self, index: int) -> slice:
        """The rows of the annotation columns that belong to image `index`."""
        return slice(int(self.first[index]), int(self.first[index + 1]))

    def training_boxes(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) xyxy float64 clipped to the image, and labels (n,), without crowds."""
        rows = self.rows(index)
        keep = ~self.crowd[rows]
        height, width = self.sizes[index]
        boxes = xywh_to_xyxy(self.boxes_xywh[rows][keep])
        return np.clip(boxes, 0, [width, height, width, height]), self.labels[rows][keep]

    def select_images(self, indices: np.ndarray) -> CocoAnnotations:
        """These images alone, in this order, with their annotations."""
        counts = np.diff(self.first)[indices]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.first[:-1][indices] - first[:-1], counts) + np.arange(first[-1])
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
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def without_category(self, category: Category) -> CocoAnnotations:
        """The same without one class, which no annotation may use."""
        label = self.categories.index(category)
        assert not np.any(self.labels == label), "the category is in use"
        kept = tuple(c for c in self.categories if c is not category)
        return replace(self, categories=kept, labels=self.labels - (self.labels > label))

    def ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """A COCO dict of this split for an evaluator.

        Ids and boxes as in the file, area and iscrowd filled where missing, crowds kept.
        """
        image_of = np.repeat(np.arange(len(self)), np.diff(self.first))
        ids, category_ids = [self.image_id(i) for i in range(len(self))], self.category_ids
        columns = zip(
            self.annotation_ids.tolist(),
            image_of.tolist(),
            self.labels.tolist(),
            self.boxes_xywh.tolist(),
            self.areas.tolist(),
            self.crowd.tolist(),
            strict=True,
        )
        return {
            "images": [
                {"id": ids[i], "file_name": self.file_names[i], "height": int(h), "width": int(w)}
                for i, (h, w) in enumerate(self.sizes)
            ],
            "annotations": [
                {
                    "id": id_,
                    "image_id": ids[image],
                    "category_id": category_ids[label],
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
                for id_, image, label, box, area, crowd in columns
            ],
            "categories": [
                {"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in self.categories
            ],
        }


def xywh_to_xyxy(boxes_xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)


def read_coco(
    path: Path,
    *,
    images_dir: Path,
    on_bad_box: OnBadBox = "error",
    on_bad_image: OnBadImage = "error",
) -> CocoAnnotations:
    """Read and check `path`, whose file names are relative to `images_dir`.

    Every problem is found before one ValueError lists them with id and fix. `on_bad_box="drop"` leaves
    out bad annotations and `on_bad_image="skip"` bad images with their annotations; what is
    left out is logged. Image files are only checked to exist here. Sizes that the file lacks are 0.
    """
    raw = read_columns(path)
    fatal, images, boxes = Findings(), Findings(), Findings()
    categories = _read_categories(raw, fatal)
    bad_image = _check_images(raw, images_dir, images)
    table = _image_table(raw)
    image_of = _lookup(raw.annotation_image_ids, table)
    labels = _lookup(raw.annotation_category_ids, np.array([c.id for c in categories], dtype=np.int64))
    bad_row = _check_annotations(raw, image_of, labels, boxes, bad_image)
    settle(
        str(path),
        fatal=fatal,
        images=images,
        boxes=boxes,
        skip=on_bad_image == "skip",
        drop=on_bad_box == "drop",
    )
    _note_oddities(path, raw)

    rows = np.flatnonzero(~bad_row)
    rows = rows[np.argsort(image_of[rows], kind="stable")]
    counts = np.bincount(image_of[rows], minlength=len(bad_image))
    annotations = CocoAnnotations(
        path=path,
        images_dir=images_dir,
        categories=categories,
        image_ids=table if table.dtype.kind == "i" else StringTable.from_strings(table.tolist()),
        file_names=StringTable.from_strings(n if isinstance(n, str) else "" for n in raw.file_names),
        sizes=_sizes(raw),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        annotation_ids=_annotation_ids(raw)[rows],
        labels=labels[rows],
        boxes_xywh=raw.boxes_xywh[rows],
        areas=_filled_areas(raw)[rows],
        crowd=raw.crowd[rows],
    )
    return annotations.select_images(np.flatnonzero(~bad_image)) if bad_image.any() else annotations


def drop_root_category(splits: Sequence[CocoAnnotations]) -> list[CocoAnnotations]:
    """Without a dummy root (Roboflow): a category without boxes that is all others' supercategory."""
    for root in splits[0].categories:
        others = [c for c in splits[0].categories if c is not root]
        is_root = bool(others) and all(c.supercategory == root.name for c in others)
        if is_root and all(_is_unused(s, root) for s in splits):
            _log.warning(
                '%s: category %d "%s" is used by no annotation and is the supercategory of all others: '
                "left out of the classes.",
                splits[0].path,
                root.id,
                root.name,
            )
            return [s.without_category(s.categories[s.categories.index(root)]) for s in splits]
    return list(splits)


def _is_unused(split: CocoAnnotations, category: Category) -> bool:
    return category in split.categories and not np.any(split.labels == split.categories.index(category))


def require_same_categories(train: CocoAnnotations, val: CocoAnnotations) -> None:
    """Raises ValueError unless both splits name the same classes by the same ids."""
    ours = dict(zip(train.category_ids, train.class_names, strict=True))
    theirs = dict(zip(val.category_ids, val.class_names, strict=True))
    if ours == theirs:
        return
    differing = sorted(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
    lines = [
        f"  id {i}: {_named(ours.get(i))} in train, {_named(theirs.get(i))} in val" for i in differing[:20]
    ]
    rest = [f"  ... and {len(differing) - 20} more"] if len(differing) > 20 else []
    raise ValueError(
        f"The categories of {train.path} and {val.path} differ:\n" + "\n".join(lines + rest) + "\n"
        "Both files must list the same categories with the same ids, used or not."
    )


def _named(name: str | None) -> str:
    return "missing" if name is None else f'"{name}"'


def require_unique_names(annotations: CocoAnnotations) -> None:
    """Raises ValueError where two classes share a name: results by class could not be told apart."""
    names = annotations.class_names
    shared = sorted({n for n in names if names.count(n) > 1})
    if shared:
        ids = [f'"{n}": ids {[c.id for c in annotations.categories if c.name == n]}' for n in shared]
        raise ValueError(
            f"{annotations.path}: categories share a name: {'; '.join(ids)}. Rename or merge them."
        )


# --- categories


def _read_categories(raw: RawCoco, fatal: Findings) -> tuple[Category, ...]:
    fix = "Give every category an integer id and a name."
    kept: dict[int, Category] = {}
    for position, c in enumerate(raw.categories):
        if type(c["id"]) is not int or not isinstance(c["name"], str) or not c["name"]:
            fatal.note(f"category at position {position}: id {c['id']!r}, name {c['name']!r}. {fix}")
        elif c["id"] in kept:
            fatal.note(f"category id {c['id']} is listed twice. Make category ids unique.")
        else:
            kept[c["id"]] = Category(c["id"], c["name"], str(c["supercategory"] or ""))
    if not raw.categories:
        fatal.note('"categories" is empty. List every class with an id and a name.')
    return tuple(kept[i] for i in sorted(kept))


# --- images


def _image_table(raw: RawCoco) -> np.ndarray:
    return id_array(raw.image_ids) if raw.image_ids else np.zeros(0, np.int64)


def _sizes(raw: RawCoco) -> np.ndarray:
    clean = [(h, w) if _is_size(h) and _is_size(w) else (0, 0) for h, w in raw.sizes]
    return np.array(clean, dtype=np.int64).reshape(-1, 2)


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 1 and value == int(value)


def _check_images(raw: RawCoco, images_dir: Path, found: Findings) -> np.ndarray:
    """Which images cannot be used (N,); describes why."""
    names, ids = raw.file_names, raw.image_ids
    bad = np.zeros(len(names), dtype=bool)

    def report(which: Any, why: str) -> None:
        which = which & ~bad

        def describe(i: int) -> str:
            height, width = raw.sizes[i]
            return f'image {ids[i]!r} ("{names[i]}")' + why.format(h=height, w=width, folder=images_dir)

        found.add(np.flatnonzero(which), describe)
        bad[:] |= which

    def mask(flags: Any) -> np.ndarray:
        return np.fromiter(flags, dtype=bool, count=len(names))

    report(mask(type(i) not in (int, str) for i in ids), ": has no id. Give every image an integer id.")
    report(
        _duplicated(_image_table(raw)), ": its id is used by another image as well. Make image ids unique."
    )
    report(mask(not isinstance(n, str) or not n for n in names), ": has no file_name. Name the file.")
    report(
        mask(isinstance(n, str) and _leaves_folder(n) for n in names),
        ": its file_name leaves the image folder {folder}. Use a path relative to that folder.",
    )
    declared = mask(h is not None or w is not None for h, w in raw.sizes)
    good_size = mask(_is_size(h) and _is_size(w) for h, w in raw.sizes)
    report(declared & ~good_size, ": height {h!r}, width {w!r}. Write the size in pixels, or leave both out.")
    missing = _missing_files([n if not b else "" for n, b in zip(names, bad, strict=True)], images_dir)
    report(missing, ": no such file in {folder}. Add it, or correct data.root or the file_name.")
    return bad


def _duplicated(ids: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def _leaves_folder(name: str) -> bool:
    if ".." not in name and ":" not in name and name[:1] not in "/\\":
        return False
    parts = os.path.normpath(name.replace("\\", "/"))
    drive = len(name) > 2 and name[1] == ":" and name[2] in "/\\"
    return drive or parts == ".." or parts.startswith(("../", "/"))


def _missing_files(names: list[str], images_dir: Path) -> np.ndarray:
    """Which files do not exist; each folder is listed once. An empty name counts as present."""
    folders: dict[str, set[str]] = {}
    missing = np.zeros(len(names), dtype=bool)
    for i, name in enumerate(names):
        folder, _, base = name.rpartition("/")
        if folder not in folders:
            folders[folder] = _listing(images_dir / folder)
        missing[i] = bool(name) and base not in folders[folder]
    return missing


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (OSError, ValueError):
        return set()


# --- annotations


def _lookup(keys: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Position in `table` of each key, -1 where it is not there. Texts and integers are compared as texts."""
    if keys.dtype.kind != table.dtype.kind:
        keys, table = keys.astype(str), table.astype(str)
    if not len(table):
        return np.full(len(keys), -1, dtype=np.int64)
    order = np.argsort(table, kind="stable")
    at = np.minimum(np.searchsorted(table[order], keys), len(table) - 1)
    found = order[at]
    return np.where(table[found] == keys, found, -1).astype(np.int64)


def _check_annotations(
    raw: RawCoco, image_of: np.ndarray, labels: np.ndarray, found: Findings, bad_image: np.ndarray
) -> np.ndarray:
    """Which annotations cannot be used (M,); describes why. Those of bad images are not described again."""
    names, boxes = raw.file_names, raw.boxes_xywh
    known = image_of >= 0
    bad = known & bad_image[image_of] if len(bad_image) else np.zeros(len(boxes), dtype=bool)
    sizes = _sizes(raw)[image_of] if len(bad_image) else np.zeros((len(boxes), 2), dtype=np.int64)

    def report(which: Any, why: str) -> None:
        which = which & ~bad

        def describe(i: int) -> str:
            image = raw.annotation_image_ids[i]
            name = f' ("{names[image_of[i]]}")' if known[i] else ""
            values = {"box": [float(x) for x in boxes[i]], "category": raw.annotation_category_ids[i]}
            size = {"height": sizes[i][0], "width": sizes[i][1]}
            return f"image {image}{name}, annotation {raw.annotation_ids[i]}: " + why.format(**values, **size)

        found.add(np.flatnonzero(which), describe)
        bad[:] |= which

    report(~known, "no image has this image_id. List the image, or remove the annotation.")
    report(labels < 0, "no category has the id {category}. List the category, or remove the annotation.")
    report(~np.isfinite(boxes).all(axis=1), "box {box} is not four finite numbers [x, y, width, height].")
    report(
        ~(boxes[:, 2:] > 0).all(axis=1),
        "box {box} has zero or negative width or height. Correct or remove it.",
    )
    before = xywh_to_xyxy(boxes)[:, 2:] <= 0
    after = (boxes[:, :2] >= sizes[:, ::-1]) & (sizes > 0)
    report(
        (before | after).any(axis=1),
        "box {box} lies outside its image of height {height}, width {width}. Correct or remove it.",
    )
    report(_repeats(raw.annotation_ids, bad), "its id is used by an earlier annotation. Make the ids unique.")
    return bad


def _repeats(ids: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Which usable ids were seen before in the file; a missing id repeats nothing."""
    usable = np.flatnonzero(~bad)
    repeats = np.zeros(len(ids), dtype=bool)
    repeats[usable] = True
    repeats[usable[np.unique(ids[usable], return_index=True)[1]]] = False
    if ids.dtype.kind != "i":
        repeats &= ids != ""
    return repeats


def _annotation_ids(raw: RawCoco) -> np.ndarray:
    """As in the file; numbered from 1 where any is missing or no integer."""
    ids = raw.annotation_ids
    return ids if ids.dtype.kind == "i" else np.arange(1, len(ids) + 1, dtype=np.int64)


def _filled_areas(raw: RawCoco) -> np.ndarray:
    """As in the file; width times height where missing."""
    computed = raw.boxes_xywh[:, 2] * raw.boxes_xywh[:, 3]
    return np.where(np.isfinite(raw.areas) & (raw.areas >= 0), raw.areas, computed)


def _note_oddities(path: Path, raw: RawCoco) -> None:
    if raw.annotation_ids.dtype.kind != "i":
        _log.warning("%s: some annotation ids are missing or no integers: all are numbered from 1.", path)
    if raw.ignore_count:
        _log.warning(
            '%s: %d annotations have "ignore" set, which has no effect: COCO evaluation looks at "iscrowd".',
            path,
            raw.ignore_count,
        )
