"""Anchors: the boxes that a region proposal network starts from, several at each cell of each level."""

# A anchors over all levels, R ratios x scales

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from detector.structures import PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Boxes of areas (scale * stride)^2 and of each height / width in `ratios`, around the corner of every
    cell.

    `grid`: "stride", cells lie a stride apart, as in Detectron2 and MMDetection. "torchvision", as its
    published weights were trained: the corners of a box are rounded to whole pixels, and cells lie
    (image side // number of cells) apart, which is less than a stride where a level was rounded up.
    """

    scales: tuple[PositiveFloat, ...] = (8.0,)
    ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    grid: Literal["stride", "torchvision"] = "stride"

    @property
    def per_cell(self) -> int:
        return len(self.scales) * len(self.ratios)

    def make(
        self, shapes: Sequence[tuple[int, int]], strides_px: Sequence[int], *, device: torch.device
    ) -> list[Float[Tensor, "A 4"]]:
        """xyxy anchors in pixels of levels with `shapes` (rows, columns), the finest first: row by row, then
        by cell, then by ratio and scale."""
        image = [side * strides_px[0] for side in shapes[0]]
        levels = []
        for shape, stride in zip(shapes, strides_px, strict=True):
            steps = (stride, stride)
            if self.grid == "torchvision":
                steps = (image[0] // shape[0], image[1] // shape[1])
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
