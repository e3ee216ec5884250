"""Engines that compute COCO's precision and recall: pycocotools, and hotcoco, its faster equal.

Both take the same rows, checked and numbered beforehand, and return the same arrays to the last digit:
precision (T, R, K, A, M) and recall (T, K, A, M), -1 where there is no object. T IoU thresholds 0.50:0.95,
R 101 recalls, K classes, A areas (all, small, medium, large), M limits (1, 10, 100).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, Literal

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.matching import Rows

BackendName = Literal["pycocotools", "hotcoco"]
_Curves = tuple[np.ndarray, np.ndarray]


def curves(backend: BackendName, rows: Rows, truth: GroundTruth) -> _Curves:
    return _BACKENDS[backend](rows, truth)


def hotcoco_run(rows: Rows, truth: GroundTruth) -> hotcoco.COCOeval:
    """Return a hotcoco evaluation, matched but not accumulated."""
    table = np.column_stack([rows.images, rows.boxes_xywh, rows.scores, rows.categories])
    objects = hotcoco.COCO(_dataset(truth, truth.annotations))
    run = hotcoco.COCOeval(objects, objects.load_res(table), "bbox")
    run.evaluate()
    return run


def _by_hotcoco(rows: Rows, truth: GroundTruth) -> _Curves:
    run = hotcoco_run(rows, truth)
    run.accumulate()
    assert run.eval is not None, "it was accumulated"
    return run.eval["precision"], run.eval["recall"]


def _by_pycocotools(rows: Rows, truth: GroundTruth) -> _Curves:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        run = COCOeval(_indexed(truth, truth.annotations), _indexed(truth, _annotations(rows)), "bbox")
        run.evaluate()
        run.accumulate()
    return run.eval["precision"], run.eval["recall"]


def _annotations(rows: Rows) -> list[dict[str, Any]]:
    columns = (rows.images, rows.categories, rows.boxes_xywh, rows.scores)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "score": score,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, category, box, score) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]


def _indexed(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = _dataset(truth, annotations)
    coco.createIndex()
    return coco


def _dataset(truth: GroundTruth, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": number} for number in truth.image_numbers.values()],
        "categories": [
            {"id": number, "name": name} for number, name in enumerate(truth.class_names, start=1)
        ],
        "annotations": annotations,
    }


_BACKENDS: dict[BackendName, Callable[[Rows, GroundTruth], _Curves]] = {
    "pycocotools": _by_pycocotools,
    "hotcoco": _by_hotcoco,
}
