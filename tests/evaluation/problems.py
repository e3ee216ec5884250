"""Small detection problems, by hand and by chance."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

PERFECT = 0.99


def ground_truth(**changes: Any) -> dict[str, Any]:
    """Two images, two classes, three objects."""
    return {
        "images": [
            {"id": 10, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 20, "file_name": "b.jpg", "width": 100, "height": 80},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            annotation(1, 10, 1, [5.0, 5.0, 20.0, 20.0]),
            annotation(2, 10, 3, [40.0, 10.0, 40.0, 40.0]),
            annotation(3, 20, 1, [30.0, 30.0, 25.0, 25.0]),
        ],
        **changes,
    }


def annotation(id_: Any, image_id: Any, category_id: Any, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
        **more,
    }


def perfect_results(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The ground truth's own boxes as detections, without its crowds."""
    return [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for a in truth["annotations"]
        if not a.get("iscrowd")
    ]


def random_problem(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Crowds, empty images, an unused class, all sizes, near and far detections, tied scores."""
    rng = np.random.default_rng(seed)
    images = [{"id": int(i), "width": 400, "height": 400} for i in rng.permutation(50)[:6]]
    categories = [{"id": int(i), "name": f"class {i}"} for i in (7, 2, 5)]
    annotations, results = [], []
    for number in range(1, 25):
        image, category = int(rng.integers(0, 5)), int(rng.integers(0, 2))
        box = [float(v) for v in np.r_[rng.uniform(0, 200, 2), rng.uniform(4, 180, 2)].round(2)]
        where = images[image]["id"], categories[category]["id"]
        annotations.append(annotation(number, *where, box, iscrowd=int(rng.random() < 0.15)))
        for _ in range(int(rng.integers(0, 4))):
            near = [float(v) for v in (np.array(box) * rng.uniform(0.85, 1.15, 4)).round(2)]
            score = float(rng.integers(1, 12)) / 12
            results.append({"image_id": where[0], "category_id": where[1], "bbox": near, "score": score})
    return {"images": images, "categories": categories, "annotations": annotations}, results


def crowded_problem(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """More detections than count in an image, and areas other than those of boxes."""
    truth, results = random_problem(seed)
    rng = np.random.default_rng(seed)
    for row in truth["annotations"]:
        row["area"] *= float(rng.choice([0.05, 0.7, 1.0]))
    for _ in range(300):
        box = [float(v) for v in np.r_[rng.uniform(0, 300, 2), rng.uniform(0, 120, 2)].round(2)]
        where = {"image_id": truth["images"][0]["id"], "category_id": truth["categories"][0]["id"]}
        results.append({**where, "bbox": box, "score": float(rng.integers(0, 30)) / 30})
    return truth, results


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    coco = COCO()
    coco.dataset = {"info": {}, **truth}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
    return run
