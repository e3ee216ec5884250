"""The classes of a dataset, and checks that its splits agree on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from detector.coco.annotations import Category, CocoAnnotations
from detector.coco.findings import MAX_LISTED

_log = logging.getLogger(__name__)


def drop_root_category(
    splits: Sequence[CocoAnnotations], *, known: Sequence[str] = ()
) -> list[CocoAnnotations]:
    """Drop a dummy root (Roboflow): a category without boxes that is the supercategory of all others.

    `known` are the classes of a trained model. They repeat the decision of its training, which saw other
    splits, too: if they are the classes of the file, there is no root; a category with a known name is the
    root only if the others are exactly the known classes, as a root may share its name with a class.
    """
    if known and splits[0].class_names == tuple(known):
        return list(splits)
    for root in splits[0].categories:
        others = [c for c in splits[0].categories if c is not root]
        is_root = bool(others) and all(c.supercategory == root.name for c in others)
        is_class = root.name in known and [c.name for c in others] != list(known)
        if is_root and not is_class and all(_is_unused(s, root) for s in splits):
            _log.warning(
                '%s: category %d "%s" is used by no annotation and is the supercategory of all others: '
                "left out of the classes.",
                splits[0].path,
                root.id,
                root.name,
            )
            return [s.without_category(root) for s in splits]
    return list(splits)


def _is_unused(split: CocoAnnotations, category: Category) -> bool:
    return category in split.categories and not np.any(split.labels == split.categories.index(category))


def require_same_categories(train: CocoAnnotations, val: CocoAnnotations) -> None:
    """Raise ValueError unless both splits list the same classes with the same ids."""
    ours = dict(zip(train.category_ids, train.class_names, strict=True))
    theirs = dict(zip(val.category_ids, val.class_names, strict=True))
    if ours == theirs:
        return
    differing = sorted(i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i))
    lines = [
        f"  id {i}: {_named(ours.get(i))} in train, {_named(theirs.get(i))} in val"
        for i in differing[:MAX_LISTED]
    ]
    if len(differing) > MAX_LISTED:
        lines.append(f"  ... and {len(differing) - MAX_LISTED} more")
    raise ValueError(
        f"The categories of {train.path} and {val.path} differ:\n" + "\n".join(lines) + "\n"
        "Both files must list the same categories with the same ids, used or not."
    )


def _named(name: str | None) -> str:
    return "missing" if name is None else f'"{name}"'


def require_unique_names(annotations: CocoAnnotations) -> None:
    """Raise ValueError if two classes share a name: results by class would be ambiguous."""
    names = annotations.class_names
    shared = sorted({n for n in names if names.count(n) > 1})
    if shared:
        ids = [f'"{n}": ids {[c.id for c in annotations.categories if c.name == n]}' for n in shared]
        raise ValueError(
            f"{annotations.path}: categories share a name: {'; '.join(ids)}. Rename or merge them."
        )
