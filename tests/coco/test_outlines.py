"""Outlines of masks along the edges of their pixels."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_tools

from detector.coco.outlines import outlines, polygons, svg_path


def encoded(mask: np.ndarray) -> bytes:
    counts = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert isinstance(counts, bytes)
    return counts


def drawn(parts: list[list[int]], size: tuple[int, int]) -> Any:
    return mask_tools.decode(mask_tools.merge(mask_tools.frPyObjects(parts, *size))).astype(bool)


def blobs(seed: int, size: tuple[int, int] = (23, 31)) -> np.ndarray:
    """Several parts with bays and holes, some at the borders."""
    coarse = np.random.default_rng(seed).random((6, 7)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) > 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_have_the_pixels_of_the_mask(seed: int) -> None:
    mask = blobs(seed)
    assert np.array_equal(drawn(polygons(encoded(mask), height=23), mask.shape), mask)


@pytest.mark.parametrize("seed", range(20))
def test_any_pixels_come_back(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 11)) > 0.45
    assert np.array_equal(drawn(polygons(encoded(mask), height=9), mask.shape), mask)


def test_holes_are_rings_of_their_own() -> None:
    mask = np.zeros((8, 9), dtype=bool)
    mask[1:7, 2:8] = True
    mask[3:5, 4:6] = False
    (part,) = outlines(encoded(mask), height=8)
    assert sorted(part.outer.tolist()) == [[2, 1], [2, 7], [8, 1], [8, 7]]
    (hole,) = part.holes
    assert sorted(hole.tolist()) == [[4, 3], [4, 5], [6, 3], [6, 5]]


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks(value: bool) -> None:
    mask = np.full((4, 5), value)
    parts = polygons(encoded(mask), height=4)
    assert [sorted(zip(p[::2], p[1::2], strict=True)) for p in parts] == (
        [[(0, 0), (0, 4), (5, 0), (5, 4)]] if value else []
    )


def path_mask(path: str, size: tuple[int, int]) -> np.ndarray:
    drawing = np.zeros(size, np.uint8)
    rings = []
    for start, steps in re.findall(r"M([^l]*)l([^z]*)z", path):
        numbers = np.array([*map(int, re.findall(r"-?\d+", f"{start} {steps}"))]).reshape(-1, 2)
        rings.append(np.cumsum(numbers, axis=0))
    cv2.fillPoly(drawing, [ring.astype(np.int32) for ring in rings], 1)
    return drawing.astype(bool)


def test_simplified_path_is_short_and_near() -> None:
    y, x = np.mgrid[:200, :300]
    radius = np.hypot(x - 140, y - 90)
    ring = (radius < 80) & (radius > 40)
    path = svg_path(encoded(ring), height=200, tolerance_px=1.0)
    assert len(path) < 300
    near = path_mask(path, ring.shape)
    assert (near & ring).sum() / (near | ring).sum() > 0.95


def test_simplified_path_leaves_crumbs_out() -> None:
    mask = np.zeros((60, 60), dtype=bool)
    mask[10:40, 10:40] = True
    mask[50::3, 50::3] = True
    assert svg_path(encoded(mask), height=60, tolerance_px=1.5).count("M") == 1
    alone = np.zeros((60, 60), dtype=bool)
    alone[30, 30] = True
    assert svg_path(encoded(alone), height=60, tolerance_px=1.5) == "M30 30l0 1 1 0 0-1z"
