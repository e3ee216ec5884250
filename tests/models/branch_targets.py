"""Masks and keypoints of objects, for our models and for torchvision's."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.ops.masks import cropped
from detector.structures import BoxMasks, Keypoints, Targets

KEYPOINTS = 3
_SIDE = 50  # with a multiple of 28, rounding decides how many samples a cell has

Boxes = list[list[float]]


def with_masks_and_keypoints(targets: Targets, boxes: list[Boxes]) -> Targets:
    """The targets of images with these boxes."""
    shape = targets.boxes.shape[:2]
    coverage, points = torch.zeros(*shape, _SIDE, _SIDE), torch.zeros(*shape, KEYPOINTS, 3)
    for row, image in enumerate(boxes):
        coverage[row, : len(image)], points[row, : len(image)] = _coverage(image), _keypoints(image)
    return replace(
        targets,
        masks=BoxMasks(coverage.byte()),
        keypoints=Keypoints(points[..., :2], points[..., 2].long()),
    )


def their_masks_and_keypoints(boxes: Boxes) -> dict[str, Tensor]:
    """Those of an image; masks are ours, each below a row that begins with its box (see `their_cropped`)."""
    rows = F.pad(torch.tensor(boxes).reshape(-1, 4), (0, _SIDE - 4))
    masks = torch.cat([rows[:, None], _coverage(boxes)], dim=1)
    return {"masks": masks.double(), "keypoints": _keypoints(boxes)}


def their_cropped(masks: Tensor, boxes: Tensor, matched: Tensor, size: int) -> Tensor:
    """Stand in for `project_masks_on_boxes`, which tests/ops/test_masks.py compares with ours."""
    return cropped(masks[matched, 1:].byte(), masks[matched, 0, :4], boxes, size=size)


def _coverage(boxes: Boxes) -> Tensor:
    random = torch.Generator().manual_seed(len(boxes))
    return torch.randint(0, 256, (len(boxes), _SIDE, _SIDE), generator=random).float()


def _keypoints(boxes: Boxes) -> Tensor:
    """For each box one on its right edge, one outside, and a hidden one."""
    x1, y1, x2, _ = torch.tensor(boxes).reshape(-1, 4).T
    places = [(x2, y1 + 1), (x1 - 1, y1), (x1 + (x2 - x1) / 3, y1 + 2.5)]
    xy = torch.stack([torch.stack(place, dim=-1) for place in places], dim=1)
    visibility = torch.tensor([2.0, 2, 1]).expand(len(boxes), -1)
    return torch.cat([xy, visibility[..., None]], dim=-1)
