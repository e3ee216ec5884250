"""Keypoints as the cells of heat maps: which to learn, and where the highest is, finer than a cell."""

# R regions, N detections, K keypoints, S cells of a heat map's side, G places of a grid's side, W windows

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from detector.ops.recording import is_recorded
from detector.ops.resampling import cubic_weights
from detector.structures import Keypoints

_GRID = 112  # pixels along a side that a recorded graph looks at first: all in smaller boxes
_BLOCKS = 14  # along a side of that grid; the best of each block is a place to look around
_WINDOWS = 4  # places looked around
_REACH = 12  # pixels looked at in each direction: all around a place, in boxes up to 112 * 12 pixels


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

    It is resized to the pixels of its box by bicubic interpolation, as in torchvision. A recorded graph,
    whose shapes cannot depend on boxes, looks at some of these pixels, see `_searched`.
    """
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    pixels = size.ceil()
    if is_recorded():
        place, scores = _searched(heatmaps, pixels)
        return (place + 0.5) * (size / pixels)[:, None] + boxes[:, None, :2], scores
    xy = heatmaps.new_zeros(*heatmaps.shape[:2], 2)
    scores = heatmaps.new_zeros(heatmaps.shape[:2])
    for number, (width, height) in enumerate(pixels.long().tolist()):
        resized = F.interpolate(
            heatmaps[number][:, None], size=(height, width), mode="bicubic", align_corners=False
        )
        scores[number], place = resized.flatten(1).max(dim=1)
        xy[number] = torch.stack([place % width, place // width], dim=-1).to(xy.dtype) + 0.5
    return xy * (size / pixels)[:, None] + boxes[:, None, :2], scores


def _searched(
    heatmaps: Float[Tensor, "N K S S"], pixels: Float[Tensor, "N 2"]
) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
    """Return the pixel (x, y) with the highest value of each resized heat map, and that value.

    `pixels` are width and height of the resized map. All pixels are looked at if there are at most 112 along
    each side. Else these are 112 x 112 pixels at equal distances, and then all around the best four of them;
    only a peak that is narrower than the distance and hardly higher than four others is missed.
    """
    size, per_block = heatmaps.shape[-1], _GRID // _BLOCKS
    padded = F.pad(heatmaps, (2,) * 4, mode="replicate")
    distance = (pixels / _GRID).clamp(min=1)[..., None]
    number = torch.arange(_GRID, dtype=pixels.dtype, device=pixels.device) + 0.5
    grid = (number * distance).floor().minimum(pixels[..., None] - 1)
    x, y = (_cubic_rows(grid[:, axis], pixels[:, axis, None], size)[:, None] for axis in (0, 1))
    values = (y @ padded @ x.mT).unflatten(3, (_BLOCKS, per_block)).unflatten(2, (_BLOCKS, per_block))
    best, inside = values.transpose(3, 4).flatten(4).flatten(2, 3).max(dim=-1)
    block = best.topk(_WINDOWS, dim=-1).indices
    inside = inside.gather(-1, block)
    across = (block % _BLOCKS) * per_block + inside % per_block
    down = (block // _BLOCKS) * per_block + inside // per_block
    place = torch.stack([across, down], dim=2)
    center = grid[:, None].expand(-1, heatmaps.shape[1], -1, -1).gather(-1, place)
    return _best_around(padded, center, distance, pixels)


def _best_around(
    padded: Float[Tensor, "N K _S _S"],
    center: Float[Tensor, "N K 2 W"],
    distance: Float[Tensor, "N 2 1"],
    pixels: Float[Tensor, "N 2"],
) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
    """Return the best pixel (x, y) up to `distance` around the centers, and its value."""
    reach = torch.arange(-_REACH, _REACH + 1, dtype=pixels.dtype, device=pixels.device)
    side = len(reach)
    steps = (reach * (distance / _REACH).clamp(min=1)).round()[:, None, :, None]
    count = pixels[:, None, :, None, None]
    near = (center[..., None] + steps).clamp(min=0).minimum(count - 1)
    weights = _cubic_rows(near, count, padded.shape[-1] - 4)
    values = weights[:, :, 1] @ padded[:, :, None] @ weights[:, :, 0].mT
    scores, index = values.flatten(2).max(dim=-1)
    window, cell = index // side**2, index % side**2
    places = torch.stack([window * side + cell % side, window * side + cell // side], dim=-1)
    return near.flatten(3).gather(3, places[..., None])[..., 0], scores


def _cubic_rows(
    pixel: Float[Tensor, "*P"], count: Float[Tensor, "*#P"], size: int
) -> Float[Tensor, "*P _cells"]:
    """Return the weights of padded cells at pixels of an axis with `count` of them."""
    return cubic_weights((pixel + 0.5) * (size / count) - 0.5, size=size)
