"""Masks become outlines, and outlines are drawn into the frames of boxes."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask

from detector.coco.ragged import offsets
from detector.coco.rle import decompress
from detector.coco.truth_reader import read_ground_truth
from detector.data.clipping import clip_ring, extents_inside
from detector.data.outlines import Outlines, outlines_of, pixel_edges
from detector.data.rasterizing import MASK_SIDE, rasterize
from tests.shared import shared_path


def outlines(*objects: list[list[list[float]]], even_odd: bool = False) -> Outlines:
    """Objects, each a list of rings of corners."""
    rings = [np.array(ring, dtype=np.float64) for one in objects for ring in one]
    return Outlines(
        corners=np.concatenate([np.zeros((0, 2)), *rings]),
        ring_first=offsets([*map(len, rings)]),
        first=offsets([*map(len, objects)]),
        even_odd=np.full(len(objects), even_odd),
    )


def rectangle(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def covered(one: Outlines, box: list[float], side: int = MASK_SIDE) -> np.ndarray:
    """The coverage of one object in [0, 1] (S, S)."""
    return rasterize(one, np.array([box]), side=side)[0] / 255


def test_cells_at_an_edge_are_covered_in_part() -> None:
    coverage = covered(outlines([rectangle(2.3, 1, 6.3, 7)]), [0, 0, 8, 8], side=8)
    expected = np.zeros((8, 8))
    expected[1:7, 2:7] = [0.7, 1, 1, 1, 0.3]
    np.testing.assert_allclose(coverage, expected, atol=1 / 12)


@pytest.mark.parametrize("seed", range(5))
def test_drawn_area_is_that_of_the_polygon(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 30, endpoint=False) + rng.uniform()
    radii = rng.uniform(8, 30, 2)
    ring = rng.uniform(40, 60, 2) + radii * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    box = [*ring.min(axis=0), *ring.max(axis=0)]
    x, y = ring.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    share = area / np.prod(np.ptp(ring, axis=0))
    assert covered(outlines([ring.tolist()]), box).mean() == pytest.approx(share, rel=0.004)


def test_parts_are_a_union_and_rings_of_run_lengths_have_holes() -> None:
    rings = [rectangle(0, 0, 8, 8), rectangle(2, 2, 6, 6)]
    assert covered(outlines(rings), [0, 0, 8, 8])[20:30, 20:30].min() == 1
    assert covered(outlines(rings, even_odd=True), [0, 0, 8, 8])[20:30, 20:30].max() == 0


def test_what_lies_outside_the_box_is_cut_off() -> None:
    coverage = covered(outlines([rectangle(-1e7, -50, 1e7, 10)]), [0, 0, 20, 20], side=20)
    assert coverage[:9].min() == 1
    assert coverage[11:].max() == 0


def test_an_object_without_a_mask_covers_nothing() -> None:
    pair = outlines([], [rectangle(0, 0, 4, 4)])
    coverage = rasterize(pair, np.array([[0.0, 0, 4, 4]] * 2))
    assert coverage[0].max() == 0
    assert coverage[1].mean() > 250
    assert pair.has_mask.tolist() == [False, True]
    assert rasterize(outlines(), np.zeros((0, 4))).shape == (0, MASK_SIDE, MASK_SIDE)


@pytest.mark.parametrize("seed", range(20))
def test_pixel_edges_enclose_exactly_the_pixels(seed: int) -> None:
    """Holes, single pixels, pixels that touch at a corner, masks up to the border."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 12, 2))
    pixels = (rng.random((height, width)) < rng.choice([0.2, 0.5, 0.9])).astype(np.uint8)
    counts = np.frombuffer(mask.encode(np.asfortranarray(pixels))["counts"], np.uint8)
    rings = pixel_edges(decompress(counts, np.array([0, len(counts)]))[0], height=height)
    one = outlines([ring.tolist() for ring in rings], even_odd=True)
    side = max(height, width)
    coverage = (
        covered(one, [0, 0, side, side], side=side)[:height, :width] if rings else np.zeros_like(pixels)
    )
    np.testing.assert_array_equal(coverage > 0.5, pixels > 0)


@pytest.mark.parametrize("form", ["polygons", "run lengths"])
def test_both_forms_of_a_mask_are_drawn_alike(form: str) -> None:
    polygon = [10.0, 10, 30, 10, 30, 34, 10, 34]
    segmentation = [polygon] if form == "polygons" else mask.frPyObjects([polygon], 50, 40)[0]
    content = {
        "images": [{"id": 1, "height": 50, "width": 40}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 35], "segmentation": segmentation}
        ],
    }
    masks = read_ground_truth(content, tasks=("segm",)).annotations.masks
    assert masks is not None
    coverage = covered(outlines_of(masks, height=50), [0, 0, 40, 40], side=40)
    expected = np.zeros((40, 40))
    expected[10:34, 10:30] = 1
    np.testing.assert_allclose(coverage, expected, atol=1 / 8)


def test_selection_follows_the_rows() -> None:
    three = outlines([rectangle(0, 0, 1, 1)], [], [rectangle(0, 0, 2, 2), rectangle(5, 5, 6, 6)])
    chosen = three.select(np.array([2, 1]))
    assert [len(chosen.rings(row)) for row in (0, 1)] == [2, 0]
    assert chosen.rings(0)[1].tolist() == rectangle(5, 5, 6, 6)
    assert chosen.object_of.tolist() == [0] * 8


def test_a_ring_is_cut_to_the_image() -> None:
    triangle = np.array([[4.0, -2], [14, 8], [4, 18]])
    corners = [[6, 0], [10, 4], [10, 10], [4, 10], [4, 0]]
    assert sorted(clip_ring(triangle, (10, 10)).tolist()) == sorted(corners)
    assert clip_ring(triangle, (3, 10)).tolist() == []
    assert clip_ring(triangle + 5, (100, 100)).tolist() == (triangle + 5).tolist()


def test_extents_are_those_inside_the_image() -> None:
    """A triangle whose extents reach farther in the image than it does itself."""
    pair = outlines([[[-10.0, -10], [12, -10], [-10, 12]]], [], [rectangle(50, 50, 60, 60)])
    boxes, kept = extents_inside(
        pair, np.array([[0.0, 0, 12, 12], [1, 1, 3, 3], [9, 9, 10, 10]]), size=(20, 20)
    )
    assert kept.tolist() == [0, 1]
    np.testing.assert_allclose(boxes[kept], [[0, 0, 2, 2], [1, 1, 3, 3]])


def test_real_polygons_agree_with_pycocotools() -> None:
    """Both at the resolution of the frame; pycocotools draws finer there, as it takes whole cells or none."""
    annotations = read_ground_truth(shared_path("data/coco_cc/val.json"), tasks=("segm",)).annotations
    assert annotations.masks is not None
    ious = []
    for index in range(len(annotations)):
        rows = annotations.rows(index).start + np.flatnonzero(~annotations.crowd[annotations.rows(index)])
        masks, (boxes, _) = annotations.masks.select(rows), annotations.training_boxes(index)
        coverage = rasterize(outlines_of(masks, height=int(annotations.sizes[index, 0])), boxes)
        for row in np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 16).tolist():
            ours, theirs = coverage[row] >= 128, _drawn_by_pycocotools(masks.polygons(row), boxes[row])
            ious.append((ours & theirs).sum() / (ours | theirs).sum())
    assert len(ious) > 50
    assert np.mean(ious) > 0.995
    assert np.mean(np.array(ious) >= 0.99) > 0.9


def _drawn_by_pycocotools(polygons: list[np.ndarray], box: np.ndarray, fine: int = 8) -> np.ndarray:
    side = MASK_SIDE * fine
    corners = [((one - box[:2]) * side / (box[2:] - box[:2])).ravel().tolist() for one in polygons]
    pixels = mask.decode(mask.merge(mask.frPyObjects(corners, side, side)))
    return np.asarray(pixels.reshape(MASK_SIDE, fine, MASK_SIDE, fine).mean(axis=(1, 3)) >= 0.5)
