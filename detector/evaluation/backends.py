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
    if rows.shapes is None:
        return _BACKENDS[backend](rows, truth)
    from detector.evaluation.shape_backends import shape_curves  # boxes do without

    return shape_curves(backend, rows, truth)


def hotcoco_run(rows: Rows, truth: GroundTruth) -> hotcoco.COCOeval:
    """Return a hotcoco evaluation, matched but not accumulated."""
    table = np.column_stack([rows.images, rows.boxes_xywh, rows.scores, rows.categories])
    objects = hotcoco.COCO(_dataset(truth, _objects(truth)))
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
        run = COCOeval(_indexed(truth, _objects(truth)), _indexed(truth, _detections(rows)), "bbox")
        run.evaluate()
        run.accumulate()
    return run.eval["precision"], run.eval["recall"]


def _objects(truth: GroundTruth) -> list[dict[str, Any]]:
    annotations = truth.annotations
    return _as_coco(
        truth.images,
        truth.categories,
        annotations.boxes_xywh,
        area=annotations.areas.tolist(),
        iscrowd=annotations.crowd.astype(int).tolist(),
    )


def _detections(rows: Rows) -> list[dict[str, Any]]:
    return _as_coco(
        rows.images,
        rows.categories,
        rows.boxes_xywh,
        area=(rows.boxes_xywh[:, 2] * rows.boxes_xywh[:, 3]).tolist(),
        iscrowd=[0] * len(rows.images),
        score=rows.scores.tolist(),
    )


def _as_coco(
    images: np.ndarray, categories: np.ndarray, boxes_xywh: np.ndarray, **more: list[Any]
) -> list[dict[str, Any]]:
    columns = {
        "image_id": images.tolist(),
        "category_id": categories.tolist(),
        "bbox": boxes_xywh.tolist(),
        **more,
    }
    return [
        {"id": number, **dict(zip(columns, row, strict=True))}
        for number, row in enumerate(zip(*columns.values(), strict=True), start=1)
    ]


def _indexed(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = _dataset(truth, annotations)
    coco.createIndex()
    return coco


def _dataset(truth: GroundTruth, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": number} for number in range(1, truth.num_images + 1)],
        "categories": [
            {"id": number, "name": name} for number, name in enumerate(truth.class_names, start=1)
        ],
        "annotations": annotations,
    }


_BACKENDS: dict[BackendName, Callable[[Rows, GroundTruth], _Curves]] = {
    "pycocotools": _by_pycocotools,
    "hotcoco": _by_hotcoco,
}
