"""COCO metrics equal to pycocotools' to the last digit, from input made safe beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.backends import BackendName, curves
from detector.evaluation.ceilings import ceiling_notes
from detector.evaluation.matching import AREAS, KEYPOINT_LIMIT, LIMIT, Matched, Rows, match
from detector.evaluation.metrics import CurveMetric, Metric, Metrics, computed, described
from detector.evaluation.results import check_results
from detector.evaluation.tasks import NOUNS, BoxTask, Task
from detector.option_types import PositiveFloat, TaskName

# T IoU thresholds 0.50:0.05:0.95, R 101 recalls, K classes, A areas (all, small, medium, large),
# M limits

CocoMetrics = Metrics  # its public name
_LIMITS = {1: 0, 10: 1, KEYPOINT_LIMIT: 2, LIMIT: 2}  # places among an engine's


class CocoEvaluator:
    """An evaluator of results against one ground truth, usable any number of times.

    Args:
        ground_truth: a COCO file, a COCO dictionary, or a `GroundTruth`, which is checked already.
        backend: the engine: pycocotools, the reference, or hotcoco, which is many times faster and equal to
            the last digit.
        metrics: more metrics by any name, which COCO's twelve are computed with.
        on_bad_box: what to do with annotations that pycocotools would count as objects nobody can find.
        source: the name of a dictionary in messages.
        task: what is evaluated: boxes, masks (segm) or keypoints.
        sigmas: the constants of keypoint similarity, for classes with so many keypoints. None: those of the
            ground truth, which a training's has, else COCO's for 17 keypoints.

    Raises:
        ValueError: the ground truth has bad images, categories or annotations; each is named.
    """

    def __init__(
        self,
        ground_truth: GroundTruth | dict[str, Any] | Path | str,
        *,
        backend: BackendName = "pycocotools",
        metrics: Mapping[str, Metric | CurveMetric] | None = None,
        on_bad_box: Literal["error", "drop"] = "error",
        source: str = "ground truth",
        task: TaskName = "bbox",
        sigmas: tuple[PositiveFloat, ...] | None = None,
    ) -> None:
        if not isinstance(ground_truth, GroundTruth):
            from detector.coco.truth_reader import read_ground_truth  # late: it imports all the checks

            ground_truth = read_ground_truth(
                ground_truth, tasks=(task,), on_bad_box=on_bad_box, source=source
            )
        if sigmas is not None and task != "keypoints":
            raise ValueError(
                f"evaluation.sigmas is for keypoints, and {NOUNS[task]} are evaluated: leave it out."
            )
        self._task = _task(task, sigmas)
        self.truth, notes = self._task.truth(ground_truth)
        self.specs = described(metrics or {}, self._task.specs)
        self._backend = backend
        self._metrics = {key: m for key, m in (metrics or {}).items() if isinstance(m, Metric)}
        # Notes on the ground truth, whatever the results.
        self.notes = (*self.truth.notes, *notes, *ceiling_notes(self.truth, self._task.limit))

    @property
    def task(self) -> TaskName:
        return self._task.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The keys of `per_class`, in the order of the category ids."""
        return self.truth.class_names

    def evaluate(self, results: Sequence[Any] | Path, *, source: str = "results") -> Metrics:
        """Compute the metrics of results with original ids or file names, or of a file of them.

        No results give zeros.

        The order of the rows matters only between equal scores of one class in one image: there the earlier
        row ranks higher, as in pycocotools (the published numbers depend on it).

        Raises:
            ValueError: some results cannot be evaluated; gives their number, an example and a hint after
                `source`.
        """
        return self.score(*self.read(results, source=source))

    def score(self, rows: Rows, notes: Sequence[str] = ()) -> Metrics:
        """Compute the metrics of the rows that `read` returns, with its notes."""
        arrays = curves(self._backend, rows, self.truth)
        specs = [spec for spec in self.specs if isinstance(spec, CurveMetric)]
        values = _summary(*arrays, specs, classes=slice(None))
        per_class = {
            name: _summary(*arrays, specs, classes=slice(k, k + 1))
            for k, name in enumerate(self.truth.class_names)
        }
        if self._metrics:
            matched = match(rows, self.truth)
            values |= self.custom(matched)
            for name, one in zip(self.class_names, matched.classes, strict=True):
                per_class[name] |= self.custom(replace(matched, classes=(one,)), by_class=True)
        return Metrics(values, per_class, (*notes,), self.specs)

    def custom(self, matched: Matched, *, by_class: bool = False) -> dict[str, float]:
        """Compute the metrics that are no curves', or those of them with `by_class`."""
        metrics: dict[str, float] = {}
        for key, metric in self._metrics.items():
            names = [spec.name for spec in metric.specs if spec.by_class or not by_class]
            if names:
                values = computed(key, metric, matched)
                metrics |= {name: values[name] for name in names}
        return metrics

    def matched(self, results: Sequence[Any], *, source: str = "results") -> Matched:
        """Match the detections with the ground truth; raises as `evaluate`."""
        return match(self.rows(results, source=source), self.truth)

    def rows(self, results: Sequence[Any], *, source: str = "results") -> Rows:
        """Return results as flat arrays with the numbers of the ground truth; raises as `evaluate`."""
        return self.read(results, source=source)[0]

    def read(self, results: Sequence[Any] | Path, *, source: str = "results") -> tuple[Rows, tuple[str, ...]]:
        """Return the `rows` of results, and notes on them and on the ground truth; raises as `evaluate`."""
        if isinstance(results, str | Path):
            from detector.evaluation.result_files import read_results  # needed only for a file

            results, source = read_results(Path(results)), str(results)
        results, left_out = self._task.own(results)
        resolved = check_results(results, truth=self.truth, source=source, shape=self._task.key)
        notes = [f"{source}: {note}" for note in (*left_out, *resolved.notes)]
        return self._task.rows(resolved, self.truth, source=source), (*self.notes, *notes)


def _task(name: TaskName, sigmas: tuple[float, ...] | None) -> Task:
    """Return a task, whose module is imported only here; `sigmas` are for keypoints."""
    if name == "segm":
        from detector.evaluation.masks import MaskTask

        return MaskTask()
    if name == "keypoints":
        from detector.evaluation.keypoints import KeypointTask

        return KeypointTask(sigmas)
    return BoxTask()


def _summary(
    precision: np.ndarray, recall: np.ndarray, specs: Sequence[CurveMetric], *, classes: slice
) -> dict[str, float]:
    """Repeat pycocotools' `summarize` over some classes: the same indexing gives the same rounding.

    Shapes: precision (T, R, K, A, M), recall (T, K, A, M).
    """
    curves = {"precision": precision, "recall": recall}
    areas = [*AREAS]
    return {
        spec.name: _mean_of_defined(
            curves[spec.kind][spec.ious][..., classes, [areas.index(spec.area)], [_LIMITS[spec.limit]]]
        )
        for spec in specs
    }


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0
