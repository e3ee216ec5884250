"""The collation of samples into one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from detector.data.dataset import Sample
from detector.structures import Batch, BoxMasks, Keypoints, Targets

# Feature maps of stride 32 then cover the padded image exactly.
SIZE_DIVISOR = 32


def collate(samples: Sequence[Sample]) -> Batch:
    """Collate samples into a batch, padding images with zeros at the right and bottom.

    The padded size is that of the largest image, rounded up to a multiple of `SIZE_DIVISOR`. Boxes are padded
    to the largest number of boxes in an image. A batch may be empty: see `EvaluationBatchSampler`.
    """
    if not samples:
        return _empty()
    sizes = [(s.image.shape[1], s.image.shape[2]) for s in samples]
    height, width = (-(-max(side) // SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*sizes, strict=True))
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
    for image, sample in zip(images, samples, strict=True):
        image[:, : sample.image.shape[1], : sample.image.shape[2]] = sample.image
    return Batch(
        images=images,
        image_sizes=torch.tensor(sizes),
        original_sizes=torch.tensor([s.original_size for s in samples]),
        indices=torch.tensor([s.index for s in samples]),
        targets=_pad_targets(samples),
    )


def _empty() -> Batch:
    empty = torch.zeros(0, 0)
    return Batch(
        images=torch.zeros(0, 3, SIZE_DIVISOR, SIZE_DIVISOR, dtype=torch.uint8),
        image_sizes=torch.zeros(0, 2, dtype=torch.int64),
        original_sizes=torch.zeros(0, 2, dtype=torch.int64),
        indices=torch.zeros(0, dtype=torch.int64),
        targets=Targets(boxes=torch.zeros(0, 0, 4), labels=empty.long(), valid=empty.bool()),
    )


def _pad_targets(samples: Sequence[Sample]) -> Targets:
    max_objects = max(len(s.labels) for s in samples)
    boxes = torch.zeros(len(samples), max_objects, 4)
    labels = torch.zeros(len(samples), max_objects, dtype=torch.int64)
    valid = torch.zeros(len(samples), max_objects, dtype=torch.bool)
    for i, sample in enumerate(samples):
        count = len(sample.labels)
        boxes[i, :count], labels[i, :count], valid[i, :count] = sample.boxes, sample.labels, True
    masks = [sample.masks for sample in samples if sample.masks is not None]
    keypoints = [sample.keypoints for sample in samples if sample.keypoints is not None]
    return Targets(
        boxes=boxes,
        labels=labels,
        valid=valid,
        masks=BoxMasks(pad_sequence(masks, batch_first=True)) if masks else None,
        keypoints=Keypoints(
            pad_sequence([one.xy for one in keypoints], batch_first=True),
            pad_sequence([one.visibility for one in keypoints], batch_first=True),
        )
        if keypoints
        else None,
    )
