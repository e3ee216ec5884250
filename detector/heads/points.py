"""The points of a feature pyramid and their assignment to ground-truth boxes (FCOS)."""

# P points over all levels, B images, G ground-truth boxes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from detector.heads.grid import Grid, cell_steps
from detector.ops.boxes import box_area
from detector.structures import Targets


@dataclass(frozen=True)
class Points:
    """The points of all levels, finest level first, row by row, in pixels of the batch."""

    xy: Float[Tensor, "P 2"]
    strides: Float[Tensor, "P"]
    size_range: Float[Tensor, "P 2"]  # distance of the farthest side of the boxes that a point learns


def make_points(
    shapes: Sequence[tuple[int, int]],
    strides_px: Sequence[int],
    *,
    offset: float,
    grid: Grid = "stride",
    device: torch.device,
) -> Points:
    """Return the points of levels with `shapes` (rows, columns).

    `offset` is the position in a cell, 0 its corner, 0.5 its middle; `grid` sets the distance between cells
    (see `cell_steps`). The size range of a level goes from the end of the finer one's to 8 strides; the
    finest has no lower and the coarsest no upper bound (FCOS section 3.2, m = 0, 64, 128, 256, 512, inf).
    """
    xys, strides, ranges = [], [], []
    steps = cell_steps(shapes, strides_px, grid)
    for level, ((rows, columns), stride, (down, right)) in enumerate(
        zip(shapes, strides_px, steps, strict=True)
    ):
        y = (torch.arange(rows, device=device) + offset) * down
        x = (torch.arange(columns, device=device) + offset) * right
        xy = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 2).float()
        low = 0.0 if level == 0 else 4.0 * stride
        high = float("inf") if level == len(shapes) - 1 else 8.0 * stride
        xys.append(xy)
        strides.append(xy.new_full((xy.shape[0],), float(stride)))
        ranges.append(xy.new_tensor([low, high]).expand(xy.shape[0], 2))
    return Points(torch.cat(xys), torch.cat(strides), torch.cat(ranges))


def assign_points(points: Points, targets: Targets, *, center_radius: float) -> Int64[Tensor, "B P"]:
    """Return the index of the box that each point learns, the smallest that qualifies, or -1.

    A box qualifies if the point is inside it, near its center (closer than `center_radius` strides in x and
    y; 0 turns this off) and the distance of its farthest side lies in the point's size range.
    """
    num_boxes = targets.boxes.shape[1]
    if num_boxes == 0:
        return torch.full((len(targets.boxes), len(points.xy)), -1, device=points.xy.device)
    center = (targets.boxes[..., :2] + targets.boxes[..., 2:])[:, None] / 2
    half = (targets.boxes[..., 2:] - targets.boxes[..., :2])[:, None] / 2
    # Along one axis the farther side is half + |distance to the center| away, the nearer one half - |...|.
    dx = (points.xy[:, None, 0] - center[..., 0]).abs()  # (B, P, G)
    dy = (points.xy[:, None, 1] - center[..., 1]).abs()
    match = (dx < half[..., 0]) & (dy < half[..., 1]) & targets.valid[:, None]
    if center_radius > 0:
        match &= torch.maximum(dx, dy) < center_radius * points.strides[:, None]
    farthest = torch.maximum(dx + half[..., 0], dy + half[..., 1])
    match &= (farthest > points.size_range[:, None, 0]) & (farthest < points.size_range[:, None, 1])
    areas = box_area(targets.boxes)[:, None].expand_as(farthest)
    smallest, index = areas.masked_fill(~match, torch.inf).min(dim=2)
    return index.masked_fill(smallest.isinf(), -1)
