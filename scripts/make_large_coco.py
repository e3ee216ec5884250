"""Write a dataset of COCO train2017's size: polygons, crowds, ids with gaps, gray images.

    python scripts/make_large_coco.py FOLDER [--images 118287]

Writes FOLDER/train.json (about 450 MB), val.json (its first 100 images) and images/, where every
file name is a link to one of a few JPEGs: little disk, whole epochs.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

BOXES_PER_IMAGE = 860_001 / 118_287
NUMBERS_PER_POLYGON = 44  # gives train2017's 448 MB
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500))
CATEGORY_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def make_image(index: int) -> dict[str, Any]:
    height, width = SIZES[index % len(SIZES)]
    return {
        "license": 3,
        "file_name": f"{index:012d}.jpg",
        "coco_url": f"http://images.cocodataset.org/train2017/{index:012d}.jpg",
        "height": height,
        "width": width,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
        "id": index * 5 + 9,
    }


def make_annotation(rng: np.random.Generator, image: dict[str, Any], annotation_id: int) -> dict[str, Any]:
    x, y = rng.uniform(0, 0.7) * image["width"], rng.uniform(0, 0.7) * image["height"]
    w, h = rng.uniform(0.01, 0.3) * image["width"], rng.uniform(0.01, 0.3) * image["height"]
    points = rng.random((NUMBERS_PER_POLYGON // 2, 2)) * (w, h) + (x, y)
    return {
        "segmentation": [points.round(2).ravel().tolist()],
        "area": round(w * h * 0.6, 4),
        "iscrowd": int(annotation_id % 86 == 0),
        "image_id": image["id"],
        "bbox": [round(v, 2) for v in (x, y, w, h)],
        "category_id": CATEGORY_IDS[int(rng.integers(len(CATEGORY_IDS)))],
        "id": annotation_id,
    }


def write_split(path: Path, *, num_images: int) -> None:
    """One object at a time: the file is larger than one wants to hold."""
    rng = np.random.default_rng(0)
    images = [make_image(i) for i in range(num_images)]
    categories = [{"supercategory": "thing", "id": i, "name": f"class {i}"} for i in CATEGORY_IDS]
    with path.open("w") as file:
        file.write(
            f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": ['
        )
        for k in range(round(num_images * BOXES_PER_IMAGE)):
            image = images[int(rng.integers(num_images))]
            file.write(", " * bool(k) + json.dumps(make_annotation(rng, image, k + 1)))
        file.write("]}")


def write_images(folder: Path, *, num_images: int) -> None:
    for index in range(num_images):
        height, width = SIZES[index % len(SIZES)]
        shared = folder / f"shared_{height}x{width}.jpg"
        if not shared.exists():
            cv2.imwrite(str(shared), np.full((height, width, 3), 128, np.uint8))
        os.symlink(shared.name, folder / f"{index:012d}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=118_287)
    args = parser.parse_args()
    (args.folder / "images").mkdir(parents=True)
    write_split(args.folder / "train.json", num_images=args.images)
    write_split(args.folder / "val.json", num_images=min(100, args.images))
    write_images(args.folder / "images", num_images=args.images)


if __name__ == "__main__":
    main()
