"""Boundary AP against the same in pycocotools' own evaluation, and boundaries known by their shapes."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation import BoundaryAP, CocoEvaluator
from detector.evaluation.boundary import boundary
from detector.evaluation.replicates import replicates_of
from tests.evaluation.problems import ground_truth
from tests.evaluation.shapes import SIDE, random_masks


class ByBoundary(COCOeval):
    """Overlaps as Cheng et al. define them, from whole images."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        ious, (objects, found) = super().computeIoU(imgId, catId), (self._gts, self._dts)
        gt = objects[imgId, catId]
        dt = sorted(found[imgId, catId], key=lambda one: -one["score"])[: self.params.maxDets[-1]]
        for d, detection in enumerate(dt):
            for g, one in enumerate(gt):
                if not one["iscrowd"]:
                    a, b = edge(detection["segmentation"]), edge(one["segmentation"])
                    ious[d, g] = min(ious[d, g], (a & b).sum() / (a | b).sum())
        return ious


def indexed(truth: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = {"info": {}, **truth}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def edge(of: Any) -> np.ndarray:
    """Pixels within 2 % of the diagonal of another's, or the image's border, by distances along axes."""
    pixels = mask.decode(of)
    width = round(0.02 * np.hypot(SIDE, SIDE))
    inner = cv2.distanceTransform(np.pad(pixels, 1), cv2.DIST_C, 3)[1:-1, 1:-1] > width
    return (pixels > 0) & ~inner


def moved_masks(truth: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    """The objects, some pixels away."""
    coco, found = indexed(truth), []
    for one in truth["annotations"]:
        pixels = np.roll(coco.annToMask(one), tuple(rng.integers(-2, 3, 2)), (0, 1))
        shape = mask.encode(np.asfortranarray(pixels))
        segmentation = {"size": shape["size"], "counts": shape["counts"].decode()}
        where = {key: one[key] for key in ("image_id", "category_id")}
        found.append({**where, "segmentation": segmentation, "score": float(rng.random())})
    return found


@pytest.mark.parametrize("seed", range(6))
def test_it_is_that_of_pycocotools_with_the_overlaps_of_boundaries(seed: int) -> None:
    truth, results = random_masks(seed)
    results += moved_masks(truth, np.random.default_rng(seed))
    coco = indexed(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        run = ByBoundary(coco, coco.loadRes([dict(one) for one in results]), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    evaluator = CocoEvaluator(truth, task="segm", metrics={"boundary": BoundaryAP()})
    metrics = evaluator.evaluate(results)
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    found = [metrics.values[f"boundary_{name}"] for name in names]
    assert found == pytest.approx(run.stats[:6].tolist(), abs=1e-12)
    assert 0.02 < metrics.values["boundary_AP"] < metrics.values["AP"]

    replicates = replicates_of(evaluator.matched(results), evaluator)
    weights = np.ones(replicates.num_images)
    assert replicates.metrics(weights)["boundary_AP"] == pytest.approx(found[:1], abs=1e-12)


def test_a_boundary_is_a_frame_that_follows_the_border_of_the_image() -> None:
    pixels = np.zeros((60, 80), np.uint8, order="F")  # a diagonal of 100 pixels
    pixels[10:40, 50:80] = 1
    expected = pixels.copy()
    expected[13:37, 53:77] = 0
    assert (mask.decode(boundary(mask.encode(pixels), 0.03)) == expected).all()
    assert mask.area(boundary(mask.encode(pixels), 0.0)) == 4 * 29


def test_boxes_have_none() -> None:
    metrics = CocoEvaluator(ground_truth(), metrics={"boundary": BoundaryAP()}).evaluate([])
    assert metrics.values["boundary_AP"] == -1


def test_images_that_are_drawn_twice_count_twice() -> None:
    truth, results = random_masks(3)
    results += moved_masks(truth, np.random.default_rng(3))
    evaluator = CocoEvaluator(truth, task="segm", metrics={"boundary": BoundaryAP()})
    matched = evaluator.matched(results)
    replicates = replicates_of(matched, evaluator)
    weights = np.random.default_rng(0).integers(0, 3, (replicates.num_images,))

    def copies(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        counts = dict(zip([one["id"] for one in truth["images"]], weights.tolist(), strict=True))
        return [{**row, key: 100 * row[key] + number} for row in rows for number in range(counts[row[key]])]

    annotations = [{**one, "id": n} for n, one in enumerate(copies(truth["annotations"], "image_id"), 1)]
    drawn = {**truth, "images": copies(truth["images"], "id"), "annotations": annotations}
    again = CocoEvaluator(drawn, task="segm", metrics={"boundary": BoundaryAP()})
    expected = again.evaluate(copies(results, "image_id")).values["boundary_AP"]
    for _ in range(2):  # the second from what is kept
        values = replicates.metrics(weights.astype(np.float64))
        assert values["boundary_AP"] == pytest.approx([expected], abs=1e-12)


def test_a_metric_can_be_copied_and_has_a_width_that_makes_sense() -> None:
    assert copy.deepcopy(BoundaryAP(0.05))._width == 0.05
    with pytest.raises(ValueError, match=r"width=-5\.0, expected a share"):
        BoundaryAP(-5.0)
