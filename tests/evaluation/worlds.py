"""Data sets by chance, and the results of models of a known skill on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.evaluation.problems import annotation


def world(images: int, random: np.random.Generator) -> dict[str, Any]:
    """Images with some objects each."""
    annotations: list[dict[str, Any]] = []
    for image in range(images):
        for place in range(random.integers(1, 4)):
            box = [80.0 * place, float(random.uniform(0, 50)), *map(float, random.uniform(20, 70, 2))]
            annotations.append(annotation(len(annotations) + 1, image, int(random.integers(1, 3)), box))
    return {
        "images": [{"id": i, "width": 300, "height": 200} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}],
    }


def run_of(truth: dict[str, Any], random: np.random.Generator, *, skill: float = 0.7) -> list[dict[str, Any]]:
    """What a model finds. Every run has its own luck, as a whole and on each object."""
    skill = min(1.0, max(0.0, skill + 0.05 * random.standard_normal()))
    results = []
    for row in truth["annotations"]:
        for is_true in (random.random() < skill, False):
            if is_true or random.random() < 0.4:
                box = np.array(row["bbox"]) + (random.normal(0, 2, 4) if is_true else [0, 90, 0, 0])
                score = float(np.clip(random.normal(0.6 if is_true else 0.4, 0.15), 0.01, 1))
                where = {key: row[key] for key in ("image_id", "category_id")}
                results.append({**where, "bbox": box.clip(1e-3).tolist(), "score": score})
    return results
