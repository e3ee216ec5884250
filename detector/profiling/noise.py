"""Images and boxes of noise, for measurements without training."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from detector.structures import Batch, Targets


def random_batch(
    *,
    num_classes: int,
    image_size: tuple[int, int] = (256, 256),
    batch_size: int = 4,
    count: int = 10,
) -> Batch:
    """Return a batch of noise with `count` boxes per image, the same at each call.

    Images of (height, width) pixels are padded to multiples of 32, as batches of data are.
    """
    random = torch.Generator().manual_seed(0)
    size = torch.tensor(image_size)
    corner = torch.rand(batch_size, count, 2, generator=random) * 0.7
    extent = torch.rand(batch_size, count, 2, generator=random) * 0.28 + 1 / 64
    images = torch.randint(0, 256, (batch_size, 3, *image_size), dtype=torch.uint8, generator=random)
    sizes = size.expand(batch_size, 2).contiguous()
    return Batch(
        images=F.pad(images, (0, -image_size[1] % 32, 0, -image_size[0] % 32)),
        image_sizes=sizes,
        original_sizes=sizes,
        indices=torch.arange(batch_size),
        targets=Targets(
            torch.cat([corner, corner + extent], dim=-1) * size.flip(0).repeat(2),
            torch.randint(0, num_classes, (batch_size, count), generator=random),
            torch.ones(batch_size, count, dtype=torch.bool),
        ),
    )
