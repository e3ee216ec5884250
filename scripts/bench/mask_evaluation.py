"""The evaluation of masks at the size of COCO's val2017 against pycocotools' own."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import METRIC_NAMES

from .timing import interleaved_medians, markdown_comparison

_IMAGES, _CLASSES, _OBJECTS, _DETECTIONS = 5_000, 80, 36_000, 100_000
_HEIGHT, _WIDTH, _CORNERS = 480, 640, 22


def mask_evaluation_table(*, repeats: int = 3) -> str:
    """Return the times from files to COCO's metrics, which are equal to the last digit."""
    with tempfile.TemporaryDirectory() as folder:
        truth, results = _write_problem(Path(folder))
        values = _by_ours(truth, results)
        assert values == _by_pycocotools(truth, results), "the digits are the same"
        times = interleaved_medians(
            {
                "pycocotools": lambda: _by_pycocotools(truth, results),
                "ours, hotcoco": lambda: _by_ours(truth, results),
            },
            repeats,
        )
    rows = {f"{_DETECTIONS:,} masks in {_IMAGES:,} images, from files to AP": times}
    table = markdown_comparison(rows, reference="pycocotools")
    return f"{table}\n\nBoth have the same metrics to the last digit (AP {values[0]:.3f})."


def _by_pycocotools(truth: Path, results: Path) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        run = COCOeval(coco, coco.loadRes(str(results)), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats]


def _by_ours(truth: Path, results: Path) -> list[float]:
    metrics = CocoEvaluator(truth, task="segm", backend="hotcoco").evaluate(results)
    return [metrics.values[name] for name in METRIC_NAMES]


def _write_problem(folder: Path) -> tuple[Path, Path]:
    """Write polygons, of which every other one is found, and detections with the sizes of COCO's objects."""
    random = np.random.default_rng(0)
    centers = random.uniform((0, 0), (_WIDTH, _HEIGHT), (_OBJECTS, 2))
    radii = np.exp(random.uniform(np.log(4), np.log(120), _OBJECTS))
    where = [
        {"image_id": image, "category_id": category}
        for image, category in zip(
            random.integers(_IMAGES, size=_OBJECTS).tolist(),
            random.integers(_CLASSES, size=_OBJECTS).tolist(),
            strict=True,
        )
    ]
    annotations = [
        _annotation(number, _polygon(random, center, radius)) | place
        for number, (center, radius, place) in enumerate(zip(centers, radii, where, strict=True), start=1)
    ]
    chosen = random.integers(_OBJECTS, size=_DETECTIONS)
    moved = centers[chosen] + random.normal(0, 0.2, (_DETECTIONS, 2)) * radii[chosen, None]
    results = [
        {
            **where[number],
            "segmentation": _run_lengths(_polygon(random, center, radii[number])),
            "score": float(random.random()),
        }
        for number, center in zip(chosen.tolist(), moved, strict=True)
    ]
    content = {
        "images": [{"id": i, "width": _WIDTH, "height": _HEIGHT} for i in range(_IMAGES)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(_CLASSES)],
        "annotations": annotations,
    }
    (folder / "gt.json").write_text(json.dumps(content))
    (folder / "dt.json").write_text(json.dumps(results))
    return folder / "gt.json", folder / "dt.json"


def _polygon(random: np.random.Generator, center: np.ndarray, radius: float) -> list[float]:
    """Return the corners of a star-shaped outline in the image."""
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    reach = radius * random.uniform(0.8, 1.1, _CORNERS)
    points = center + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners: list[float] = points.clip(0, (_WIDTH, _HEIGHT)).round(2).ravel().tolist()
    return corners


def _annotation(number: int, polygon: list[float]) -> dict[str, Any]:
    points = np.array(polygon).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    (shape,) = mask.frPyObjects([polygon], _HEIGHT, _WIDTH)
    return {
        "id": number,
        "segmentation": [polygon],
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "area": float(mask.area(shape)),
        "iscrowd": 0,
    }


def _run_lengths(polygon: list[float]) -> dict[str, Any]:
    (shape,) = mask.frPyObjects([polygon], _HEIGHT, _WIDTH)
    return {"size": shape["size"], "counts": shape["counts"].decode()}
