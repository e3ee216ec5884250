"""The engines of `backends` for masks and keypoints."""

# T IoU thresholds, R recalls, K classes, A areas, M limits

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.coco.ground_truth import GroundTruth
from detector.coco.json_files import no_garbage_collection
from detector.evaluation.matching import AREAS, IOUS, TIDE_IOUS, Rows, Shapes

_Sigmas = tuple[float, ...] | None
_Engine = Callable[[dict[str, Any], dict[str, Any], Shapes, _Sigmas], Any]


@no_garbage_collection()
def shape_curves(backend: str, rows: Rows, truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """Return precision (T, R, K, A, M) and recall (T, K, A, M), as `backends.curves`."""
    num_classes = len(truth.class_names)
    precision = np.full((len(IOUS), 101, num_classes, len(AREAS), 3), -1.0)
    recall = np.full((len(IOUS), num_classes, len(AREAS), 3), -1.0)
    for classes, run in _runs(_by_hotcoco if backend == "hotcoco" else _by_pycocotools, rows, truth):
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            run.accumulate()
        precision[:, :, classes] = run.eval["precision"][:, :, classes]
        recall[:, classes] = run.eval["recall"][:, classes]
    return precision, recall


def shape_tide(rows: Rows, truth: GroundTruth) -> dict[str, Any]:
    """Return TIDE by hotcoco: the AP50 that each kind of error costs, a mean over classes; their counts."""
    lost, counts, total = dict[str, float](), dict[str, int](), 0
    for classes, run in _runs(_by_hotcoco, rows, truth):
        tide = run.tide_errors(**TIDE_IOUS)
        weight = len(np.intersect1d(classes, truth.annotations.labels[~truth.ignored]))
        total += weight
        for kind, value in tide["delta_ap"].items():
            lost[kind] = lost.get(kind, 0.0) + weight * value
        for kind, count in tide["counts"].items():
            counts[kind] = counts.get(kind, 0) + count
    return {"delta_ap": {kind: value / max(1, total) for kind, value in lost.items()}, "counts": counts}


def _runs(engine: _Engine, rows: Rows, truth: GroundTruth) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield the classes of each schema and an engine's run over them, matched but not accumulated."""
    assert rows.shapes is not None
    objects, detections = _objects(rows.shapes, truth), _detections(rows)
    for classes, sigmas in rows.shapes.classes_by_schema():
        chosen = {*(classes + 1).tolist()}
        yield (
            classes,
            engine(
                _dataset(truth, [o for o in objects if o["category_id"] in chosen]),
                _dataset(truth, [d for d in detections if d["category_id"] in chosen]),
                rows.shapes,
                sigmas,
            ),
        )


def _by_pycocotools(
    objects: dict[str, Any], detections: dict[str, Any], shapes: Shapes, sigmas: _Sigmas
) -> COCOeval:
    def indexed(dataset: dict[str, Any]) -> COCO:
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(indexed(objects), indexed(detections), shapes.task)
        run.params.areaRng, run.params.areaRngLbl = [[*area] for area in AREAS.values()], [*AREAS]
        run.params.maxDets = [1, 10, shapes.limit]
        if sigmas is not None:
            run.params.kpt_oks_sigmas = np.array(sigmas)
        run.evaluate()
    return run


def _by_hotcoco(
    objects: dict[str, Any], detections: dict[str, Any], shapes: Shapes, sigmas: _Sigmas
) -> hotcoco.COCOeval:
    run = hotcoco.COCOeval(hotcoco.COCO(objects), hotcoco.COCO(detections), shapes.task)
    run.params.area_rng, run.params.area_rng_lbl = [[*area] for area in AREAS.values()], [*AREAS]
    run.params.max_dets = [1, 10, shapes.limit]
    if sigmas is not None:  # it would take those of a person's first keypoints
        run.params.kpt_oks_sigmas = [*sigmas]
    run.evaluate()
    return run


def _objects(shapes: Shapes, truth: GroundTruth) -> list[dict[str, Any]]:
    annotations = truth.annotations
    return _entries(
        image_id=truth.images.tolist(),
        category_id=truth.categories.tolist(),
        bbox=annotations.boxes_xywh.tolist(),
        area=annotations.areas.tolist(),
        iscrowd=annotations.crowd.astype(int).tolist(),
        **shapes.engine_objects(),
    )


def _detections(rows: Rows) -> list[dict[str, Any]]:
    assert rows.shapes is not None
    return _entries(
        image_id=rows.images.tolist(),
        category_id=rows.categories.tolist(),
        bbox=rows.boxes_xywh.tolist(),
        area=rows.areas.tolist(),
        iscrowd=[0] * len(rows.images),
        score=rows.scores.tolist(),
        **rows.shapes.engine_detections(),
    )


def _entries(**columns: Sequence[Any]) -> list[dict[str, Any]]:
    names, numbers = ("id", *columns), range(1, len(columns["image_id"]) + 1)
    return [dict(zip(names, values, strict=True)) for values in zip(numbers, *columns.values(), strict=True)]


def _dataset(truth: GroundTruth, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [
            {"id": number, "height": height, "width": width}
            for number, (height, width) in enumerate(truth.annotations.sizes.tolist(), start=1)
        ],
        "categories": [
            {"id": number, "name": name} for number, name in enumerate(truth.class_names, start=1)
        ],
        "annotations": annotations,
    }
