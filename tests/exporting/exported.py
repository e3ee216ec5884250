"""The input of exported files in tests: needs torch alone."""

from __future__ import annotations

import torch

CANVAS = [(96, 160), (90, 128)]  # heights and widths of two images


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(2, 3, 96, 160, dtype=torch.uint8)
    for image, (height, width) in zip(images, CANVAS, strict=True):
        image[:, :height, :width] = torch.randint(0, 256, (3, height, width), generator=generator)
    return images, torch.tensor(CANVAS)
