"""A format of data: what it reads, here numbers of squares, becomes COCO files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Squares:
    count: int = 2

    def generate(self, root: Path) -> Path:
        (root / "images").mkdir(parents=True, exist_ok=True)
        for split in ("train", "val"):
            images, annotations = [], []
            for number in range(1, self.count + 1):
                name = f"{split}{number}.png"
                image = np.zeros((64, 64, 3), np.uint8)
                image[10:30, 10:30] = 255
                cv2.imwrite(str(root / "images" / name), image)
                images.append({"id": number, "file_name": name, "width": 64, "height": 64})
                box = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
                annotations.append({"id": number, "image_id": number, "category_id": 1, **box})
            categories = [{"id": 1, "name": "square"}]
            content = {"images": images, "annotations": annotations, "categories": categories}
            (root / f"{split}.json").write_text(json.dumps(content))
        return root
