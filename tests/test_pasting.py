"""Pasted masks have the pixels that torchvision gives them, and pycocotools' text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_tools
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detector.pasting import encoded_masks

HEIGHT, WIDTH = 60, 90
BORDERS = {
    "the whole image": [0, 0, 90, 60],
    "the upper left": [0, 0, 13.3, 9.1],
    "the lower right": [70.2, 41.7, 90, 60],
    "full columns": [30, 0, 41.5, 60],
    "full rows": [0, 20.5, 90, 31],
    "beyond the image": [-20, -7.5, 120, 80],
    "less than a pixel": [10.2, 10.3, 10.6, 10.9],
    "one pixel": [10, 10, 11, 11],
    "nothing": [33, 12, 33, 12],
    "nothing in the corner": [90, 60, 90, 60],
    "no width": [50, 10, 50, 40],
    "odd": [3.7, 5.2, 47.9, 33.3],
}


def as_torchvision(coverage: Tensor, boxes: Tensor) -> list[str]:
    pasted = paste_masks_in_image(coverage[:, None], boxes, (HEIGHT, WIDTH))[:, 0] > 0.5
    pixels = np.asfortranarray(pasted.numpy().transpose(1, 2, 0).astype(np.uint8))
    return [one["counts"].decode() for one in mask_tools.encode(pixels)]


def smooth(count: int, *, cells: int = 28, seed: int = 0) -> Tensor:
    """Masks with bays, holes and several parts, and values that are exactly 0.5."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 5, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(cells, cells), mode="bicubic")[:, 0]
    return (masks.clamp(0, 1) * 16).round() / 16


@pytest.mark.parametrize("box", BORDERS.values(), ids=BORDERS)
def test_pixels_are_torchvisions_at_borders(box: list[float]) -> None:
    coverage = torch.cat([smooth(3), torch.ones(1, 28, 28), torch.zeros(1, 28, 28)])
    boxes = torch.tensor([box], dtype=torch.float32).repeat(len(coverage), 1)
    assert encoded_masks(coverage, boxes, (HEIGHT, WIDTH)) == as_torchvision(coverage, boxes)


@pytest.mark.parametrize("cells", [14, 28])
def test_pixels_are_torchvisions_for_boxes_by_chance(cells: int) -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(100, 2, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT]) * 1.2 - 5
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1).clamp(min=0)
    boxes = boxes.minimum(torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    coverage = smooth(100, cells=cells)
    assert encoded_masks(coverage, boxes, (HEIGHT, WIDTH)) == as_torchvision(coverage, boxes)


def test_no_masks_give_no_texts() -> None:
    assert encoded_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (HEIGHT, WIDTH)) == []


def test_coverage_in_bytes_counts_from_half_of_255() -> None:
    coverage = torch.tensor([127, 128], dtype=torch.uint8)[:, None, None].expand(2, 28, 28)
    boxes = torch.tensor([[10.0, 10.0, 20.0, 20.0]]).repeat(2, 1)
    below, above = encoded_masks(coverage, boxes, (HEIGHT, WIDTH))
    area = [mask_tools.area({"size": [HEIGHT, WIDTH], "counts": text.encode()}) for text in (below, above)]
    assert area[0] == 0
    assert area[1] >= 81
