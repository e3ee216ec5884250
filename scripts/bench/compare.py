"""How long the intervals of a comparison take on a problem of the size of COCO's val2017."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from detector.environment import peak_memory_mb
from detector.evaluation.backends import BackendName
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.replicates import Replicates
from detector.evaluation.statistics import draw

from .timing import markdown_row

_IMAGES, _CLASSES, _OBJECTS, _DETECTIONS = 5_000, 80, 36_000, 500_000
_BACKENDS: tuple[BackendName, ...] = ("pycocotools", "hotcoco")


def comparison_table(*, num_resamples: int = 1000) -> str:
    """Times and memory of matching two variants, and of `num_resamples` draws of their images."""
    random = np.random.default_rng(0)
    truth = _ground_truth(random)
    evaluator = CocoEvaluator(truth)
    results = [_results(truth, random) for _ in range(2)]
    start = time.perf_counter()
    runs = [Replicates(evaluator.matched(detections).classes) for detections in results]
    matched = time.perf_counter()
    before = peak_memory_mb() or 0.0
    draw(runs, num_resamples=num_resamples)
    drawn, peak = time.perf_counter(), peak_memory_mb() or 0.0
    evaluations = [_seconds(CocoEvaluator(truth, backend=name), results[0]) for name in _BACKENDS]
    rows = (
        ("images, classes, objects", f"{_IMAGES:,}, {_CLASSES}, {_OBJECTS:,}"),
        ("detections of each of 2 variants", f"{_DETECTIONS:,}"),
        ("matching both, s", f"{matched - start:.0f}"),
        (f"{num_resamples:,} replicates of both, s", f"{drawn - matched:.1f}"),
        ("memory at the peak, of it before the replicates, MB", f"{peak:.0f}, {before:.0f}"),
        (
            "COCO metrics of one variant by pycocotools, by hotcoco, s",
            ", ".join(f"{s:.1f}" for s in evaluations),
        ),
    )
    return "\n".join([markdown_row(["", ""]), markdown_row(["---", "---:"]), *map(markdown_row, rows)])


def _seconds(evaluator: CocoEvaluator, results: list[dict[str, Any]]) -> float:
    start = time.perf_counter()
    evaluator.evaluate(results)
    return time.perf_counter() - start


def _ground_truth(random: np.random.Generator) -> dict[str, Any]:
    xy = random.uniform(0, 400, (_OBJECTS, 2))
    sides = np.exp(random.uniform(np.log(8), np.log(200), (_OBJECTS, 2)))
    places = zip(
        random.integers(_IMAGES, size=_OBJECTS).tolist(),
        random.integers(_CLASSES, size=_OBJECTS).tolist(),
        np.concatenate([xy, sides], axis=1).tolist(),
        strict=True,
    )
    return {
        "images": [{"id": i, "width": 640, "height": 640} for i in range(_IMAGES)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(_CLASSES)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": box}
            for n, (image, category, box) in enumerate(places, start=1)
        ],
    }


def _results(truth: dict[str, Any], random: np.random.Generator) -> list[dict[str, Any]]:
    """A detection near most objects, the others anywhere; 100 an image."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for row in truth["annotations"]:
        by_image.setdefault(row["image_id"], []).append(row)
    results = []
    for image in range(_IMAGES):
        for place in range(_DETECTIONS // _IMAGES):
            objects = by_image.get(image, [])
            if place < len(objects) and random.random() < 0.8:
                box = np.array(objects[place]["bbox"]) * random.normal(1, 0.05, 4)
                category, score = objects[place]["category_id"], random.beta(4, 3)
            else:
                box = np.append(random.uniform(0, 400, 2), random.uniform(8, 200, 2))
                category, score = int(random.integers(_CLASSES)), random.beta(1, 6)
            results.append(
                {"image_id": image, "category_id": category, "bbox": box.tolist(), "score": float(score)}
            )
    return results
