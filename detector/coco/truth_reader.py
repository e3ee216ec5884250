"""The reader of a COCO file or dictionary as the ground truth of an evaluation: no image is opened."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.coco.annotations import CocoAnnotations
from detector.coco.columns import RawCoco, columns_of, read_columns
from detector.coco.entries import declared_images, image_ids, read_categories
from detector.coco.findings import Policy, Problems
from detector.coco.ground_truth import GroundTruth
from detector.coco.rules import printable, repeated_files_note
from detector.coco.usable import usable_annotations
from detector.option_types import OnBadBox, TaskName

_log = logging.getLogger(__name__)


def read_ground_truth(
    truth: Path | str | dict[str, Any],
    *,
    tasks: Sequence[TaskName] = (),
    on_bad_box: OnBadBox = "error",
    source: str = "ground truth",
) -> GroundTruth:
    """Read and check a COCO file or dictionary; `source` names a dictionary in messages.

    Masks and keypoints are read if `tasks` need them. The rules for annotations are those of training data
    (`read_coco`). Images need no file name, and no size but for masks.

    Raises:
        ValueError: naming every bad image, category and annotation. With `on_bad_box="drop"` bad annotations
            are left out, with a warning that lists them.
    """
    if isinstance(truth, dict):
        raw = columns_of(truth, source=source, tasks=tasks)
    else:
        raw = read_columns(Path(truth), tasks=tasks)
    problems = Problems()
    categories = read_categories(raw.categories, problems.fatal, with_keypoints=raw.keypoints is not None)
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
