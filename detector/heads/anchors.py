"""Anchors, the boxes that a region proposal network refines, several at each cell of each level."""

# A anchors over all levels, R ratios x scales

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from detector.heads.grid import Grid, cell_steps
from detector.option_types import PositiveFloat


@dataclass(frozen=True, kw_only=True)
class AnchorGenerator:
    """A generator of anchors around the corner of each cell.

    They have the areas (scale * stride)^2 for `scales`, and each height / width in `ratios`.
    `grid` sets the distance between cells, see `cell_steps`. With "torchvision" the corners of an anchor
    around the origin are also rounded to whole pixels.
    """

    scales: tuple[PositiveFloat, ...] = (8.0,)
    ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    grid: Grid = "stride"

    @property
    def per_cell(self) -> int:
        return len(self.scales) * len(self.ratios)

    def __call__(
        self, shapes: Sequence[tuple[int, int]], strides_px: Sequence[int], *, device: torch.device
    ) -> list[Float[Tensor, "A 4"]]:
        """Return the xyxy anchors in pixels of levels with `shapes` (rows, columns), finest first.

        The order within a level is by row, then cell, then ratio and scale.
        """
        levels = []
        all_steps = cell_steps(shapes, strides_px, self.grid)
        for shape, stride, steps in zip(shapes, strides_px, all_steps, strict=True):
            y, x = (torch.arange(n, device=device) * step for n, step in zip(shape, steps, strict=True))
            corners = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 1, 2)
            levels.append((corners.repeat(1, 1, 2) + self._around_origin(stride, device)).reshape(-1, 4))
        return levels

    def _around_origin(self, stride: int, device: torch.device) -> Float[Tensor, "R 4"]:
        scales = torch.tensor(self.scales, device=device) * stride
        heights = torch.tensor(self.ratios, device=device).sqrt()
        sizes = torch.stack([1 / heights, heights], dim=-1)[:, None] * scales[:, None]
        halves = sizes.reshape(-1, 2) / 2
        boxes = torch.cat([-halves, halves], dim=-1)
        return boxes.round() if self.grid == "torchvision" else boxes
