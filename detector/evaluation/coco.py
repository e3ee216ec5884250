"""COCO box metrics by pycocotools, to its last digit, with its input made safe beforehand."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.ground_truth import GroundTruth, check_ground_truth
from detector.evaluation.ids import id_key
from detector.evaluation.results import check_results

# T IoU thresholds 0.50:0.05:0.95, R 101 recalls, K classes, A areas (all, small, medium, large),
# M limits (1, 10, 100)


@dataclass(frozen=True)
class CocoMetrics:
    """The twelve numbers of the COCO box task, in [0, 1], or -1 where they are undefined.

    AP and AR average over IoU 0.50:0.95, AP50 and AP75 are at one IoU; s, m, l are areas below 32^2, up to
    96^2 and above, in pixels of the image file; AR1, AR10, AR100 allow that many detections an image and
    class. -1 is what pycocotools gives where no object of the size (or class) exists; it is kept, because
    zero would read as failure. `per_class` holds the same twelve for each class name.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_class: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON, all digits kept."""
        return asdict(self)


METRIC_NAMES = tuple(field.name for field in fields(CocoMetrics) if field.name != "per_class")


class CocoEvaluator:
    """Scores results against one ground truth, any number of times.

    Args:
        ground_truth: COCO dictionary with the original ids (any JSON scalar). It is not changed.
        on_bad_box: what to do with annotations that pycocotools would count as objects nobody can find.
        source: the file's name for messages.

    Raises:
        ValueError: naming each bad image, category and annotation of the ground truth.
    """

    def __init__(
        self,
        ground_truth: dict[str, Any],
        *,
        on_bad_box: Literal["error", "drop"] = "error",
        source: str = "ground truth",
    ) -> None:
        self._truth = check_ground_truth(ground_truth, on_bad_box=on_bad_box, source=source)
        self._coco = _indexed(self._truth, self._truth.annotations)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The keys of `per_class`, in the order of the category ids."""
        return self._truth.class_names

    def evaluate(self, results: Sequence[Any], *, source: str = "results") -> CocoMetrics:
        """The metrics of results with original ids. No results give zeros.

        The order of the rows matters only between equal scores of one class in one image: there the earlier
        row ranks higher, as in pycocotools (the published numbers depend on it).

        Raises:
            ValueError: results that cannot be evaluated, counted, with an example and a hint, after `source`.
        """
        run = self.matched(results, source=source)
        with contextlib.redirect_stdout(io.StringIO()):
            run.accumulate()
        precision, recall = run.eval["precision"], run.eval["recall"]
        every = slice(None)
        return CocoMetrics(
            **_summary(precision, recall, classes=every),
            per_class={
                name: _summary(precision, recall, classes=slice(k, k + 1))
                for k, name in enumerate(self._truth.class_names)
            },
        )

    def matched(self, results: Sequence[Any], *, source: str = "results") -> COCOeval:
        """pycocotools' run after matching detections to objects; raises as `evaluate`."""
        check_results(results, truth=self._truth, source=source)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            run = COCOeval(self._coco, _indexed(self._truth, self._rows(results)), "bbox")
            run.evaluate()
        return run

    def _rows(self, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Results as pycocotools annotations: by image, best score first, ties as given; numbered from 1."""
        images, categories = self._truth.image_numbers, self._truth.category_numbers
        rows = [
            (
                images[id_key(result["image_id"])],
                -float(result["score"]),
                position,
                categories[id_key(result["category_id"])],
                [float(v) for v in result["bbox"]],
            )
            for position, result in enumerate(results)
        ]
        rows.sort()
        return [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "score": -negative_score,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image, negative_score, _, category, box) in enumerate(rows, start=1)
        ]


def _indexed(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in truth.image_numbers.values()],
        "categories": [{"id": number} for number in truth.category_numbers.values()],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _summary(precision: np.ndarray, recall: np.ndarray, *, classes: slice) -> dict[str, float]:
    """pycocotools' `summarize` over some classes; the same indexing, so the same rounding.

    Shapes: precision (T, R, K, A, M), recall (T, K, A, M).
    """

    def ap(iou: slice = slice(None), *, area: int = 0) -> float:
        return _mean_of_defined(precision[iou][:, :, classes, [area], [2]])

    def ar(*, area: int = 0, limit: int = 2) -> float:
        return _mean_of_defined(recall[:, classes, [area], [limit]])

    return {
        "AP": ap(),
        "AP50": ap(slice(0, 1)),
        "AP75": ap(slice(5, 6)),
        **{f"AP{size}": ap(area=area) for area, size in enumerate("sml", start=1)},
        **{f"AR{count}": ar(limit=limit) for limit, count in enumerate((1, 10, 100))},
        **{f"AR{size}": ar(area=area) for area, size in enumerate("sml", start=1)},
    }


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0
