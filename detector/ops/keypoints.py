"""Keypoints as the cells of heat maps: which to learn, and where the highest is, finer than a cell."""

# R regions, N detections, K keypoints, S cells of a heat map's side

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from detector.structures import Keypoints


def heatmap_cells(
    keypoints: Keypoints, regions: Float[Tensor, "R 4"], *, size: int
) -> tuple[Int64[Tensor, "R K"], Bool[Tensor, "R K"]]:
    """Return the cell of each keypoint in the heat map of its region, row by row, and whether there is one.

    There is one if the keypoint is labeled and inside the region (xyxy in pixels); its right and bottom edge
    belong to the last cells.
    """
    corner, opposite = regions[:, None, :2], regions[:, None, 2:]
    cells = ((keypoints.xy - corner) * (size / (opposite - corner))).floor().long()
    cells = torch.where(keypoints.xy == opposite, size - 1, cells)
    valid = (keypoints.visibility > 0) & ((cells >= 0) & (cells < size)).all(dim=-1)
    return cells[..., 1] * size + cells[..., 0], valid


def decoded_heatmaps(
    heatmaps: Float[Tensor, "N K S S"], boxes: Float[Tensor, "N 4"]
) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
    """Return where each heat map is highest, (x, y) in pixels, and its logit there.

    It is resized to the pixels of its box by bicubic interpolation, as in torchvision.
    """
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    pixels = size.ceil()
    xy = heatmaps.new_zeros(*heatmaps.shape[:2], 2)
    scores = heatmaps.new_zeros(heatmaps.shape[:2])
    for number, (width, height) in enumerate(pixels.long().tolist()):
        resized = F.interpolate(
            heatmaps[number][:, None], size=(height, width), mode="bicubic", align_corners=False
        )
        scores[number], place = resized.flatten(1).max(dim=1)
        xy[number] = torch.stack([place % width, place // width], dim=-1).to(xy.dtype) + 0.5
    return xy * (size / pixels)[:, None] + boxes[:, None, :2], scores
