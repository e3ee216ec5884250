"""Batch samplers. The batches are a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

Key = tuple[int, int]  # (epoch, index), the key of CocoDataset


class TrainBatchSampler(Sampler[list[Key]]):
    """A sampler of shuffled batches of (epoch, index), determined by (seed, epoch) alone.

    With `groups` (one integer per image) the images of a batch share their group wherever possible. Images
    that do not fill a last global batch are left out of the epoch; each epoch leaves out others. Each of
    `world_size` ranks gets its own part of every global batch.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        seed: int,
        groups: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_images < batch_size * world_size:
            raise ValueError(
                f"{num_images} training images do not fill one batch of {batch_size}"
                + (f" on each of {world_size} devices" if world_size > 1 else "")
                + f". Lower data.batch_size to at most {max(1, num_images // world_size)}."
            )
        self._num_images = num_images
        self._batch_size = batch_size
        self._seed = seed
        self._groups = groups
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0

    @property
    def sampler(self) -> TrainBatchSampler:
        """The sampler itself, as Lightning announces the epoch to `batch_sampler.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_images // (self._batch_size * self._world_size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        for batch in self.batches(epoch):
            yield [(epoch, int(i)) for i in batch]

    def batches(self, epoch: int) -> np.ndarray:
        """Return the indices of this rank's batches in `epoch`, (batches, batch_size)."""
        global_size = self._batch_size * self._world_size
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(self._num_images)
        if self._groups is not None:
            order = _group_together(order, self._groups[order], size=global_size)
        batches = order[: len(self) * global_size].reshape(len(self), self._world_size, self._batch_size)
        return rng.permutation(batches)[:, self._rank]


def _group_together(order: np.ndarray, groups: np.ndarray, *, size: int) -> np.ndarray:
    """Reorder `order` so that images that fill whole batches of one group come first, then the rest."""
    members = [order[groups == g] for g in np.unique(groups)]
    full = [m[: len(m) // size * size] for m in members]
    rest = [m[len(m) // size * size :] for m in members]
    return np.concatenate(full + rest)


class EvaluationBatchSampler(Sampler[list[Key]]):
    """A sampler that yields every image once over all ranks: the batches of one process, dealt out in turn.

    Losses are normalized by batch, so the same batches give the same losses on any number of ranks. All ranks
    have the same number of batches, as each takes part in collective operations: a rank for which no image is
    left gets an empty batch.
    """

    def __init__(self, num_images: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._num_images = num_images
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        return -(-self._num_images // (self._batch_size * self._world_size))

    def __iter__(self) -> Iterator[list[Key]]:
        for turn in range(len(self)):
            start = (turn * self._world_size + self._rank) * self._batch_size
            yield [(0, i) for i in range(start, min(start + self._batch_size, self._num_images))]
