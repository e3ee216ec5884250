"""Small problems of masks and keypoints by chance, and what pycocotools makes of them."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.replicates import replicates_of

SIDE = 120
COCO_NAMES = [
    "nose",
    *(
        f"{side}_{part}"
        for part in ("eye", "ear", "shoulder", "elbow", "wrist")
        for side in ("left", "right")
    ),
    *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in ("left", "right")),
]


def by_pycocotools(
    truth: dict[str, Any], results: list[dict[str, Any]], kind: str, sigmas: Any = None
) -> COCOeval:
    """Its evaluation of the files as they are."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **copy.deepcopy(truth)}
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), kind)
        if sigmas is not None:
            run.params.kpt_oks_sigmas = np.array(sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def random_masks(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Polygons of one and two parts, both kinds of run lengths, crowds, empty images, tied scores."""
    rng = np.random.default_rng(seed)
    images = _images(rng)
    annotations, results = [], []
    for number in range(1, 22):
        where = _where(rng, images, classes=2)
        center, radius = rng.uniform(10, SIDE - 10, 2), rng.uniform(3, 50)
        parts = [_polygon(rng, center, radius) for _ in range(int(rng.integers(1, 3)))]
        shape = mask.merge(mask.frPyObjects(parts, SIDE, SIDE))
        if not mask.area(shape):
            continue
        crowd = int(rng.random() < 0.2)
        annotations.append(
            {
                "id": number,
                **where,
                "bbox": [float(v) for v in mask.toBbox(shape)],
                "area": float(mask.area(shape)) * float(rng.choice([1.0, 0.3])),
                "iscrowd": crowd,
                "segmentation": _uncompressed(shape)
                if crowd
                else parts
                if rng.random() < 0.7
                else _as_text(shape),
            }
        )
        for _ in range(int(rng.integers(0, 4))):
            found = _polygon(rng, center + rng.normal(0, 2, 2), radius * float(rng.uniform(0.8, 1.2)))
            found_shape = mask.frPyObjects([found], SIDE, SIDE)[0]
            results.append({**where, "segmentation": _as_text(found_shape), "score": _score(rng)})
    return {"images": images, "categories": _categories(), "annotations": annotations}, results


def random_poses(seed: int, *, keypoints: int = 17, crowds: bool = True) -> tuple[Any, list[dict[str, Any]]]:
    """Hidden and unlabeled points, objects without any, crowds, more than 20 detections, tied scores."""
    rng = np.random.default_rng(seed)
    images = _images(rng)
    names = COCO_NAMES if keypoints == 17 else [f"point {i}" for i in range(keypoints)]
    categories = [{**one, "keypoints": names, "skeleton": []} for one in _categories()]
    annotations, results = [], []
    for number in range(1, 22):
        where = _where(rng, images, classes=2)
        corner, sides = rng.uniform(0, 60, 2), rng.uniform(8, 60, 2)
        xy = corner + rng.random((keypoints, 2)) * sides
        visibility = rng.choice([0, 1, 2], size=keypoints) * int(rng.random() < 0.8)
        crowd = int(crowds and rng.random() < 0.15)
        annotations.append(
            {
                "id": number,
                **where,
                "bbox": [float(v) for v in (*corner, *sides)],
                "area": float(sides.prod()) * float(rng.choice([0.6, 2.0])),
                "iscrowd": crowd,
                "keypoints": _flat(np.where(visibility[:, None] > 0, xy.round(), 0), visibility),
                "num_keypoints": int((visibility > 0).sum()),
            }
        )
        for _ in range(int(rng.choice([0, 1, 2, 25], p=[0.3, 0.4, 0.25, 0.05]))):
            near = xy + rng.normal(0, rng.choice([0.5, 2, 6]), xy.shape)
            found = _flat(near, rng.random(keypoints))
            results.append({**where, "keypoints": found, "score": _score(rng)})
    return {"images": images, "categories": categories, "annotations": annotations}, results


def _images(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [{"id": int(i), "width": SIDE, "height": SIDE} for i in rng.permutation(50)[:6]]


def _categories() -> list[dict[str, Any]]:
    return [{"id": i, "name": f"class {i}"} for i in (7, 2, 5)]


def _where(rng: np.random.Generator, images: list[dict[str, Any]], *, classes: int) -> dict[str, Any]:
    category = _categories()[int(rng.integers(0, classes))]
    return {"image_id": images[int(rng.integers(0, 5))]["id"], "category_id": category["id"]}


def _polygon(rng: np.random.Generator, center: np.ndarray, radius: float) -> list[float]:
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 12))))
    reach = radius * rng.uniform(0.6, 1.0, len(angles))
    corners = center + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners[0] = np.clip(center - radius, 0, SIDE)  # so that none is flat
    return [float(v) for v in np.clip(corners, 0, SIDE).round(2).ravel()]


def _as_text(shape: Any) -> dict[str, Any]:
    return {"size": [SIDE, SIDE], "counts": shape["counts"].decode()}


def _uncompressed(shape: Any) -> dict[str, Any]:
    pixels = mask.decode(shape).ravel(order="F")
    edges = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], edges, [pixels.size]])).tolist()
    return {"size": [SIDE, SIDE], "counts": [0, *runs] if pixels[0] else runs}


def _flat(xy: np.ndarray, third: np.ndarray) -> list[float]:
    return [float(v) for v in np.concatenate([xy, third[:, None]], axis=1).ravel()]


def _score(rng: np.random.Generator) -> float:
    return float(rng.integers(1, 12)) / 12


def require_equal_replicates(evaluator: CocoEvaluator, results: list[dict[str, Any]]) -> set[str]:
    """Require that a replicate with every image once has the metrics of the engine; return their names."""
    metrics, matched = evaluator.evaluate(results), evaluator.matched(results)
    replicated = replicates_of(matched, evaluator).metrics(np.ones(evaluator.truth.num_images))
    means = {
        name: -1.0 if np.isnan(values).all() else float(np.nanmean(values))
        for name, values in replicated.items()
    }
    assert means == pytest.approx({name: metrics.values[name] for name in means}, abs=1e-12)
    return {*means}
