"""The positions of a pyramid's cells in the image, shared by anchors and points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Grid = Literal["stride", "torchvision"]


def cell_steps(
    shapes: Sequence[tuple[int, int]], strides_px: Sequence[int], grid: Grid
) -> list[tuple[int, int]]:
    """Return the step (down, right) between cells in pixels, for levels of `shapes` (rows, columns).

    Levels go from fine to coarse. With "stride" the step is the stride, as in Detectron2 and MMDetection.
    With "torchvision" it is image side // number of cells, as its published weights were trained: less than a
    stride if the size of a level was rounded up.
    """
    if grid == "stride":
        return [(stride, stride) for stride in strides_px]
    height, width = (side * strides_px[0] for side in shapes[0])
    return [(height // rows, width // columns) for rows, columns in shapes]
