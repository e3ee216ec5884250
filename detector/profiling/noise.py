"""Images and objects of noise, for measurements without training."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from detector.structures import Batch, BoxMasks, Keypoints, Targets


def random_batch(
    *,
    num_classes: int,
    image_size: tuple[int, int] = (256, 256),
    batch_size: int = 4,
    count: int = 10,
) -> Batch:
    """Return a batch of noise with `count` objects per image, the same at each call.

    Each is an ellipse that fills its box, with 17 keypoints on the diagonal.
    Images of (height, width) pixels are padded to multiples of 32, as batches of data are.
    """
    random = torch.Generator().manual_seed(0)
    size = torch.tensor(image_size)
    corner = torch.rand(batch_size, count, 2, generator=random) * 0.7
    extent = torch.rand(batch_size, count, 2, generator=random) * 0.28 + 1 / 64
    images = torch.randint(0, 256, (batch_size, 3, *image_size), dtype=torch.uint8, generator=random)
    sizes = size.expand(batch_size, 2).contiguous()
    axis = (torch.arange(56) + 0.5) / 28 - 1
    ellipse = (axis[:, None].square() + axis.square() < 1).byte() * 255
    points = corner[:, :, None] + extent[:, :, None] * torch.linspace(0.1, 0.9, 17)[:, None]
    return Batch(
        images=F.pad(images, (0, -image_size[1] % 32, 0, -image_size[0] % 32)),
        image_sizes=sizes,
        original_sizes=sizes,
        indices=torch.arange(batch_size),
        targets=Targets(
            torch.cat([corner, corner + extent], dim=-1) * size.flip(0).repeat(2),
            torch.randint(0, num_classes, (batch_size, count), generator=random),
            torch.ones(batch_size, count, dtype=torch.bool),
            BoxMasks(ellipse.repeat(batch_size, count, 1, 1)),
            Keypoints(points * size.flip(0), torch.full((batch_size, count, 17), 2)),
        ),
    )
