"""Drawn boxes and labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from detector.drawings import class_color, draw_detections, instance_colors
from detector.structures import BoxMasks, Detections, Keypoints, KeypointSchema

GRAY = 90


def drawn(size: tuple[int, int], boxes: list[list[float]], names: list[str]) -> np.ndarray:
    detections = Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes)) * 0.5, torch.arange(len(boxes))
    )
    image = np.full((*size, 3), GRAY, np.uint8)
    return np.asarray(draw_detections(image, detections, class_names=names))


@pytest.mark.parametrize("size", [(40, 60), (480, 640), (3000, 2000)])
def test_box_is_where_it_belongs_at_any_size(size: tuple[int, int]) -> None:
    height, width = size
    box = [0.25 * width, 0.5 * height, 0.75 * width, 0.9 * height]
    drawing = drawn(size, [box], ["a"])
    factor = drawing.shape[0] / height
    assert min(drawing.shape[:2]) >= 480
    x1, y1, x2, y2 = (round(v * factor) for v in box)
    for x, y in ((x1, (y1 + y2) // 2), (x2 - 1, (y1 + y2) // 2), ((x1 + x2) // 2, y2 - 1)):
        assert tuple(drawing[y, x]) == class_color(0)
    assert (drawing[(y1 + y2) // 2, (x1 + x2) // 2] == GRAY).all()


@pytest.mark.parametrize("box", [[0.0, 0, 20, 20], [620.0, 460, 640, 480], [0.0, 460, 5, 480]])
def test_label_stays_in_the_image(box: list[float]) -> None:
    drawing = drawn((480, 640), [box], ["a rather long name"])
    colored = (drawing != GRAY).any(axis=2)
    assert colored.any(axis=0).sum() > 100  # the whole label is there
    assert colored.sum() > 1000


def test_box_looks_the_same_among_many() -> None:
    box, others = [100.0, 100, 300, 300], [[400.0, 400, 420, 420]] * 40
    alone, among = (drawn((480, 640), boxes, ["name"] * 41)[:310, :310] for boxes in ([box], [box, *others]))
    assert (alone != GRAY).any()
    assert np.array_equal(alone, among)


def test_label_shows_what_is_under_it() -> None:
    above = drawn((480, 640), [[100.0, 100, 300, 300]], ["name"])[90:99, 100:130]
    assert (above != GRAY).any()
    assert not (above == class_color(0)).all(axis=2).any()


@pytest.mark.parametrize(("size", "expected"), [((16, 2400), (16, 2400)), ((2, 40_000), (2, 32_768))])
def test_narrow_images_stay_in_bounds(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert drawn(size, [[0.0, 0, 10, 2]], ["a"]).shape == (*expected, 3)


def test_nothing_found_leaves_the_image() -> None:
    assert (drawn((480, 640), [], []) == GRAY).all()


def test_neighboring_classes_have_different_colors() -> None:
    colors = [class_color(label) for label in range(20)]
    for a, b in pairwise(colors):
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) > 80


def test_crowded_labels_do_not_hide_each_other() -> None:
    boxes = [[100.0, 100, 300, 300], [102.0, 100, 302, 300]]
    one, other, both = (
        drawn((480, 640), chosen, ["name"] * 2) != GRAY for chosen in (boxes[:1], boxes[1:], boxes)
    )
    label = one[80:100].any(axis=2).sum()
    assert both[80:100].any(axis=2).sum() >= 1.9 * label  # not on top of each other
    assert other[80:100].any(axis=2).sum() == label


def with_masks(boxes: list[list[float]], coverage: torch.Tensor, labels: list[int]) -> np.ndarray:
    count = len(boxes)
    masks = BoxMasks(coverage.expand(count, 28, 28).float())
    detections = Detections(torch.tensor(boxes), torch.ones(count), torch.tensor(labels), masks=masks)
    image = np.full((480, 640, 3), GRAY, np.uint8)
    return np.asarray(draw_detections(image, detections, class_names=["a", "b"]))


def test_mask_is_tinted_with_a_contour() -> None:
    left_half = torch.zeros(28, 28)
    left_half[:, :14] = 1
    drawing = with_masks([[100.0, 100, 300, 300]], left_half, [0])
    assert tuple(drawing[200, 200]) == class_color(0)  # the contour, in the middle of the box
    tint = np.rint(0.6 * GRAY + 0.4 * np.array(class_color(0)))
    assert drawing[200, 150].tolist() == tint.tolist()
    assert (drawing[200, 250] == GRAY).all()


def test_large_masks_do_not_cover_small_ones() -> None:
    small, large = [180.0, 180, 220, 220], [100.0, 100, 300, 300]
    drawing = with_masks([large, small], torch.ones(1), [0, 1])
    alone = with_masks([large], torch.ones(1), [0])
    tint = np.rint(0.6 * alone[200, 200] + 0.4 * np.array(class_color(1)))
    assert drawing[200, 200].tolist() == tint.tolist()


def test_near_objects_of_a_class_differ_in_color() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [12, 12, 20, 20], [50, 50, 60, 60], [5, 5, 15, 15]])
    first, touching, beyond, far, other = instance_colors([0, 0, 0, 0, 1], boxes)
    assert touching not in (first, beyond)
    assert {first, beyond, far} == {class_color(0)}
    assert other == class_color(1)


def poses(xy: list[list[float]], visibility: list[int], scores: list[float] | None) -> Detections:
    schema = KeypointSchema(names=("a", "b", "c"), sigmas=(0.05,) * 3, skeleton=(("a", "b"), ("b", "c")))
    return Detections(
        torch.tensor([[100.0, 100, 400, 400]]),
        torch.ones(1),
        torch.tensor([1]),
        keypoints=Keypoints(torch.tensor([xy]), torch.tensor([visibility])),
        keypoint_scores=None if scores is None else torch.tensor([scores]),
        keypoint_schemas=(None, schema),
    )


@pytest.mark.parametrize(
    ("visibility", "scores", "last_is_drawn"),
    [
        ([2, 1, 2], None, True),
        ([2, 2, 0], None, False),
        ([2, 2, 2], [9.0, 4, 1], True),
        ([2, 2, 2], [9.0, 4, -1], False),
    ],
)
def test_skeleton_joins_the_keypoints_that_are_seen(
    visibility: list[int], scores: list[float] | None, last_is_drawn: bool
) -> None:
    detections = poses([[150.5, 150.5], [350.5, 150.5], [350.5, 350.5]], visibility, scores)
    image = np.full((480, 640, 3), GRAY, np.uint8)
    drawing = np.asarray(draw_detections(image, detections, class_names=["a", "b"]))
    color = class_color(1)
    assert [tuple(drawing[y, x]) for x, y in ((150, 150), (250, 150), (350, 150))] == [color] * 3
    assert tuple(drawing[158, 150]) == (GRAY,) * 3  # no bone between the first and the last
    last = [tuple(drawing[y, 350]) for y in (250, 350)]
    assert last == [color if last_is_drawn else (GRAY,) * 3] * 2


def test_class_without_keypoints_has_none_drawn() -> None:
    detections = replace(poses([[150.0, 150]] * 3, [2] * 3, None), labels=torch.tensor([0]))
    image = np.full((480, 640, 3), GRAY, np.uint8)
    assert (np.asarray(draw_detections(image, detections, class_names=["a", "b"]))[150, 150] == GRAY).all()


def test_shapes_beyond_the_image_are_cut_off() -> None:
    beyond = Detections(
        torch.tensor([[-50.0, -50, 700, 600], [700.0, 500, 800, 600]]),
        torch.ones(2),
        torch.tensor([0, 0]),
        masks=BoxMasks(torch.ones(2, 28, 28)),
        keypoints=Keypoints(torch.tensor([[[-9.0, 1e5]], [[750.0, 550]]]), torch.full((2, 1), 2)),
    )
    drawing = np.asarray(draw_detections(np.full((480, 640, 3), GRAY, np.uint8), beyond, class_names=["a"]))
    assert drawing.shape == (480, 640, 3)
    assert (drawing[240, 320] != GRAY).any()
