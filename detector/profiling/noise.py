"""Images and boxes of noise, for measurements without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from detector.option_types import TaskName
from detector.structures import Batch, BoxMasks, Keypoints, Targets


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


def with_shapes(batch: Batch, *, tasks: Sequence[TaskName], num_keypoints: int) -> Batch:
    """Return the batch with what `tasks` learn of each object: its box as a mask, keypoints inside it."""
    targets = batch.targets
    objects = targets.labels.shape
    if "segm" in tasks:
        coverage = torch.full((*objects, 56, 56), 255, dtype=torch.uint8)
        targets = replace(targets, masks=BoxMasks(coverage))
    if "keypoints" in tasks:
        places = torch.rand(*objects, num_keypoints, 2, generator=torch.Generator().manual_seed(0))
        corner, opposite = targets.boxes[..., None, :2], targets.boxes[..., None, 2:]
        xy = corner + places * (opposite - corner)
        visibility = torch.full((*objects, num_keypoints), 2)
        targets = replace(targets, keypoints=Keypoints(xy, visibility))
    return replace(batch, targets=targets)
