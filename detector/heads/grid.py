"""Where the cells of a pyramid's levels lie in the image: shared by anchors and points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Grid = Literal["stride", "torchvision"]


def cell_steps(
    shapes: Sequence[tuple[int, int]], strides_px: Sequence[int], grid: Grid
) -> list[tuple[int, int]]:
    """Pixels from a cell to the next one (down, right) in levels with `shapes` (rows, columns), the finest
    first.

    "stride": a stride, as in Detectron2 and MMDetection. "torchvision", as its published weights were
    trained: image side // number of cells, which is less than a stride where a level was rounded up.
    """
    if grid == "stride":
        return [(stride, stride) for stride in strides_px]
    height, width = (side * strides_px[0] for side in shapes[0])
    return [(height // rows, width // columns) for rows, columns in shapes]
