"""Drawn boxes and labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from detector.drawings import class_color, draw_detections
from detector.structures import Detections

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
