"""Pasting and encoding the masks of an image against torchvision's paste with pycocotools' encode."""

from __future__ import annotations

import numpy as np
import torch
from pycocotools import mask as mask_tools
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detector.pasting import encoded_masks

from .timing import interleaved_medians, markdown_comparison

_SIZE = (800, 1333)  # of the image, (height, width) in pixels
_COUNT = 100


def paste_table(*, repeats: int = 7) -> str:
    """Return the times for 100 masks of an image of 800 x 1333 with one thread, as a table."""
    masks, boxes = problem()
    assert by_crops(masks, boxes) == by_torchvision(masks, boxes), "the pixels are the same"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = interleaved_medians(
            {
                "torchvision and pycocotools": lambda: by_torchvision(masks, boxes),
                "crop by crop": lambda: by_crops(masks, boxes),
            },
            repeats,
        )
    finally:
        torch.set_num_threads(threads)
    rows = {f"{_COUNT} masks in {_SIZE[0]} x {_SIZE[1]}": times}
    return markdown_comparison(rows, reference="torchvision and pycocotools")


def problem() -> tuple[Tensor, Tensor]:
    """Return masks (N, 28, 28) and their boxes (N, 4), xyxy, with the sizes of COCO's objects."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(_COUNT, 1, 6, 6, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic")[:, 0].clamp(0, 1)
    height, width = _SIZE
    # Sides between 8 and 640 px, evenly by their logarithms.
    sides = 8 * 80 ** torch.rand(_COUNT, 2, generator=generator)
    centers = torch.rand(_COUNT, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], dim=1).clamp(min=0)
    return masks, boxes.minimum(torch.tensor([width, height, width, height]))


def by_crops(masks: Tensor, boxes: Tensor) -> list[str]:
    return encoded_masks(masks, boxes, _SIZE)


def by_torchvision(masks: Tensor, boxes: Tensor) -> list[str]:
    pasted = paste_masks_in_image(masks[:, None], boxes, _SIZE)[:, 0] > 0.5
    pixels = np.asfortranarray(pasted.numpy().transpose(1, 2, 0).view(np.uint8))
    return [one["counts"].decode() for one in mask_tools.encode(pixels)]
