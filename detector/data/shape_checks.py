"""Checks that splits have the masks and keypoints that a model learns, and agree on the keypoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from detector.coco.annotations import CocoAnnotations
from detector.data.keypoint_schemas import Pairs, keypoint_schemas, schema_notes
from detector.option_types import TaskName
from detector.structures import KeypointSchema

_log = logging.getLogger(__name__)

_BOXES_ALONE = "or choose a model of boxes alone"


def require_used_options(
    tasks: Sequence[TaskName],
    boxes_from_masks: bool,
    flip_pairs: Pairs | None,
    sigmas: tuple[float, ...] | None,
) -> None:
    """Raise ValueError if an option of the data is set that the model's `tasks` do not use."""
    options: tuple[tuple[str, object, TaskName], ...] = (
        ("boxes_from_masks", boxes_from_masks, "segm"),
        ("keypoint_flip_pairs", flip_pairs, "keypoints"),
        ("keypoint_sigmas", sigmas, "keypoints"),
    )
    unused = [f"data.{name}" for name, value, task in options if value and task not in tasks]
    if unused:
        raise ValueError(
            f"{', '.join(unused)}: has no effect, as the model predicts {', '.join(tasks) or 'bbox'} alone. "
            "Leave it out, or choose a model that does more: model=mask_rcnn or model=keypoint_rcnn."
        )


def require_shapes(splits: Sequence[CocoAnnotations], *, tasks: Sequence[TaskName]) -> None:
    """Raise ValueError if a split has no mask or no labeled keypoint though `tasks` name them.

    Also if the categories of the splits name different keypoints.
    """
    problems = [problem for split in splits for problem in _missing(split, tasks)]
    if "keypoints" in tasks:
        problems += _differences(splits)
    if problems:
        raise ValueError("\n".join(problems))


def settle_keypoints(
    split: CocoAnnotations, flip_pairs: Pairs | None, sigmas: tuple[float, ...] | None
) -> tuple[KeypointSchema | None, ...]:
    """Return the schemas of the classes, and log what they are."""
    schemas = keypoint_schemas(split.categories, flip_pairs=flip_pairs, sigmas=sigmas)
    for note in schema_notes(split.categories, schemas):
        _log.info("%s: %s", split.path, note)
    return schemas


def _missing(split: CocoAnnotations, tasks: Sequence[TaskName]) -> list[str]:
    objects = ~split.crowd
    problems = []
    if "segm" in tasks and not (split.masks is not None and (split.masks.has_mask & objects).any()):
        problems.append(
            f"{split.path}: no mask: none of its {split.object_count} objects has a segmentation. Add the "
            f"masks as polygons or run lengths, {_BOXES_ALONE}."
        )
    if "keypoints" in tasks:
        if not any(category.keypoints for category in split.categories):
            problems.append(
                f'{split.path}: no category names its keypoints. List them as "keypoints" of the category, '
                f"{_BOXES_ALONE}."
            )
        elif not (split.keypoints is not None and _has_labeled(split)):
            problems.append(
                f"{split.path}: none of its {split.object_count} objects has a keypoint with visibility 1 or "
                f'2. Add the "keypoints" of the objects, {_BOXES_ALONE}.'
            )
    return problems


def _has_labeled(split: CocoAnnotations) -> bool:
    assert split.keypoints is not None
    of_object = np.repeat(~split.crowd, np.diff(split.keypoints.first))
    return bool((split.keypoints.points[of_object, 2] > 0).any())


def _differences(splits: Sequence[CocoAnnotations]) -> list[str]:
    first, *others = splits
    return [
        f'"{ours.name}" has the keypoints {_listed(ours.keypoints)} in {first.path} and '
        f"{_listed(theirs.keypoints)} in {other.path}. Write the same names in the same order."
        for other in others
        for ours, theirs in zip(first.categories, other.categories, strict=True)
        if ours.keypoints != theirs.keypoints
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "(none)"
