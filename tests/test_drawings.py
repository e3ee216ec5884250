"""Drawn boxes and labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from detector.drawings import class_colour, draw_detections
from detector.structures import Detections

GREY = 90


def drawn(size: tuple[int, int], boxes: list[list[float]], names: list[str]) -> np.ndarray:
    found = Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes)) * 0.5, torch.arange(len(boxes))
    )
    image = np.full((*size, 3), GREY, np.uint8)
    return np.asarray(draw_detections(image, found, class_names=names))


@pytest.mark.parametrize("size", [(40, 60), (480, 640), (3000, 2000)])
def test_box_is_where_it_belongs_at_any_size(size: tuple[int, int]) -> None:
    height, width = size
    box = [0.25 * width, 0.5 * height, 0.75 * width, 0.9 * height]
    picture = drawn(size, [box], ["a"])
    factor = picture.shape[0] / height
    assert min(picture.shape[:2]) >= 480
    x1, y1, x2, y2 = (round(v * factor) for v in box)
    for x, y in ((x1, (y1 + y2) // 2), (x2 - 1, (y1 + y2) // 2), ((x1 + x2) // 2, y2 - 1)):
        assert tuple(picture[y, x]) == class_colour(0)
    assert (picture[(y1 + y2) // 2, (x1 + x2) // 2] == GREY).all()


@pytest.mark.parametrize("box", [[0.0, 0, 20, 20], [620.0, 460, 640, 480], [0.0, 460, 5, 480]])
def test_label_stays_in_the_picture(box: list[float]) -> None:
    picture = drawn((480, 640), [box], ["a rather long name"])
    coloured = (picture != GREY).any(axis=2)
    assert coloured.any(axis=0).sum() > 100  # the whole label is there
    assert coloured.sum() > 1000


def test_box_looks_the_same_among_many() -> None:
    box, others = [100.0, 100, 300, 300], [[400.0, 400, 420, 420]] * 40
    alone, among = (drawn((480, 640), boxes, ["name"] * 41)[:310, :310] for boxes in ([box], [box, *others]))
    assert (alone != GREY).any()
    assert np.array_equal(alone, among)


def test_label_shows_what_is_under_it() -> None:
    above = drawn((480, 640), [[100.0, 100, 300, 300]], ["name"])[90:99, 100:130]
    assert (above != GREY).any()
    assert not (above == class_colour(0)).all(axis=2).any()


@pytest.mark.parametrize(("size", "expected"), [((16, 2400), (16, 2400)), ((2, 40_000), (2, 32_768))])
def test_narrow_pictures_stay_in_bounds(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert drawn(size, [[0.0, 0, 10, 2]], ["a"]).shape == (*expected, 3)


def test_nothing_found_leaves_the_picture() -> None:
    assert (drawn((480, 640), [], []) == GREY).all()


def test_neighbouring_classes_have_different_colours() -> None:
    colours = [class_colour(label) for label in range(20)]
    for a, b in pairwise(colours):
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) > 80
