"""A small dataset to break: images of noise and a COCO dict that a test edits before it is written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.coco.annotations import CocoAnnotations

VALID: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 3, "file_name": "b.jpg", "width": 40, "height": 60},
        {"id": 5, "file_name": "c.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 0, "image_id": 3, "category_id": 20, "bbox": [1, 2, 10, 12], "area": 99.5, "iscrowd": 0},
        {"id": 4, "image_id": 7, "category_id": 0, "bbox": [5.25, 6.5, 20, 10], "area": 200, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 20, "bbox": [0, 0, 30, 30], "area": 900, "iscrowd": 1},
        {"id": 9, "image_id": 7, "category_id": 20, "bbox": [50, 30, 40, 40], "area": 1600, "iscrowd": 0},
    ],
    "categories": [{"id": 20, "name": "cell"}, {"id": 0, "name": "blood"}],
}


def valid() -> dict[str, Any]:
    """Sparse, unordered, 0-based ids; a crowd; a box partly outside; an image without boxes."""
    return copy.deepcopy(VALID)


def as_coco(annotations: CocoAnnotations) -> dict[str, list[dict[str, Any]]]:
    """What was read, as a COCO dictionary with the ids of the file."""
    image_of, ids = annotations.image_of, annotations.category_ids
    return {
        "images": [
            {"id": annotations.image_id(i), "file_name": annotations.file_names[i], "height": h, "width": w}
            for i, (h, w) in enumerate(annotations.sizes.tolist())
        ],
        "annotations": [
            {
                "id": int(annotations.annotation_ids[row]),
                "image_id": annotations.image_id(int(image_of[row])),
                "category_id": ids[annotations.labels[row]],
                "bbox": annotations.boxes_xywh[row].tolist(),
                "area": float(annotations.areas[row]),
                "iscrowd": int(annotations.crowd[row]),
            }
            for row in range(len(annotations.labels))
        ],
        "categories": [{"id": c.id, "name": c.name} for c in annotations.categories],
    }


def write_image(path: Path, *, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def write_dataset(root: Path, train: dict[str, Any] | None = None, val: dict[str, Any] | None = None) -> Path:
    """train.json, val.json and the images of VALID below images/."""
    for seed, image in enumerate(VALID["images"]):
        path = root / "images" / image["file_name"]
        write_image(path, height=image["height"], width=image["width"], seed=seed)
    (root / "train.json").write_text(json.dumps(train if train is not None else valid()), "utf-8")
    (root / "val.json").write_text(json.dumps(val if val is not None else valid()), "utf-8")
    return root
