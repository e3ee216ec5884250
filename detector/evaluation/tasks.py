"""The tasks of an evaluation: what they have in common, and boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.matching import LIMIT, Rows
from detector.evaluation.metrics import COCO_METRICS, CurveMetric
from detector.evaluation.result_columns import Resolved
from detector.option_types import TaskName

NOUNS: dict[TaskName, str] = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
KEYS: dict[TaskName, str] = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}  # of a result


class Task(ABC):
    """What detections are compared by, how they are read, and the metrics of it.

    At most `limit` detections per image and class count.
    """

    name: ClassVar[TaskName]
    limit: ClassVar[int] = LIMIT
    specs: ClassVar[tuple[CurveMetric, ...]] = COCO_METRICS

    @property
    def key(self) -> str:
        return KEYS[self.name]

    @abstractmethod
    def truth(self, truth: GroundTruth) -> tuple[GroundTruth, tuple[str, ...]]:
        """Return what the task evaluates of a ground truth, with notes.

        Raises:
            ValueError: the ground truth lacks what the task compares.
        """

    def own(self, results: Sequence[Any]) -> tuple[Sequence[Any], tuple[str, ...]]:
        """Return the results that the task evaluates, with a note on others. Call after `truth`."""
        return results, ()

    @abstractmethod
    def rows(self, results: Resolved, truth: GroundTruth, *, source: str) -> Rows:
        """Convert results with checked ids and scores; raise ValueError, after `source`, if any is bad."""


class BoxTask(Task):
    name = "bbox"

    def truth(self, truth: GroundTruth) -> tuple[GroundTruth, tuple[str, ...]]:
        return truth, ()

    def rows(self, results: Resolved, truth: GroundTruth, *, source: str) -> Rows:
        columns = results.columns
        return Rows.of(results.results, truth) if columns is None else Rows.of_columns(columns, truth)
