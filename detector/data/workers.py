"""Loader processes: how their batches travel, and which images each of them reads."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from detector.coco.annotations import CocoAnnotations
from detector.data.collate import SIZE_DIVISOR, collate
from detector.data.dataset import CocoDataset, Sample
from detector.data.transforms import ImageSize
from detector.option_types import NonNegativeInt, PositiveInt
from detector.structures import Batch, Record

_log = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")
_PREFETCHED = 2  # batches that torch keeps ready for each worker
_TENSORS = 10  # in a batch with masks and keypoints; each one in shared memory holds a file open
_HANDLES_OF_WORKER = 8  # its pipes, in the main process
_SPARE_HANDLES = 48  # images, checkpoints, logs
_LOADERS = 2  # for training and validation; their workers persist
_PAGE = 4096

Travel = Literal["memory", "pipe"]


@dataclass(frozen=True)
class Limits:
    """The resources that this machine leaves to loader processes; None if the system reports no limit."""

    shared_bytes: int | None
    handles: int | None

    @classmethod
    def of_this_machine(cls) -> Limits:
        """Return the limits of this machine. Raises the soft limit of open files as far as allowed."""
        shared = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None
        return cls(shared_bytes=shared, handles=_free_handles())


@dataclass(frozen=True)
class Loading:
    """The number of workers, how their batches travel to the main process, and why if not as configured."""

    num_workers: NonNegativeInt
    travel: Travel = "memory"
    note: str = ""


def plan_loading(
    num_workers: NonNegativeInt, *, batch_bytes: int, ranks: PositiveInt, limits: Limits
) -> Loading:
    """Plan to send batches through shared memory if those in flight fit there, otherwise through pipes.

    If not even the workers' locks and pipes fit, the main process loads. Samples are the same in each case.
    """
    if num_workers == 0:
        return Loading(0)
    in_flight = num_workers * (_PREFETCHED + 1) + 2
    locks = _LOADERS * (3 * num_workers + 8) * _PAGE * ranks
    pipes = _LOADERS * _HANDLES_OF_WORKER * num_workers + _SPARE_HANDLES
    memory, handles = locks + in_flight * batch_bytes * ranks, pipes + in_flight * _TENSORS
    shared = sys.maxsize if limits.shared_bytes is None else limits.shared_bytes
    free_handles = sys.maxsize if limits.handles is None else limits.handles
    shortages = []
    if shared < memory:
        shortages.append(
            f"{_SHARED_MEMORY} has {shared / 1e6:.1f} MB free and up to {memory / 1e6:.1f} MB are needed "
            "(in a container: --shm-size=2g)"
        )
    if free_handles < handles:
        shortages.append(
            f"{free_handles} more files can be open and up to {handles} are needed (ulimit -n 4096)"
        )
    if not shortages:
        return Loading(num_workers)
    why = f"data.num_workers={num_workers}: {', and '.join(shortages)}"
    if shared < locks or free_handles < pipes:
        return Loading(0, note=f"{why}. The main process loads instead, as data.num_workers=0 does.")
    advice = "Batches go through pipes instead, which is slower; data.num_workers=0 needs neither."
    return Loading(num_workers, "pipe", f"{why}. {advice}")


def largest_batch_bytes(annotations: CocoAnnotations, image_size: ImageSize, *, batch_size: int) -> int:
    """Return the bytes of the largest batch of a split, padding and masks included."""
    sizes = {(int(height), int(width)) for height, width in np.unique(annotations.sizes, axis=0)}
    fitted = (image_size.fit(size, min_size=max(image_size.choices)) for size in sizes)
    pixels = math.prod(-(-max(side) // SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*fitted, strict=True))
    cells = 0
    if annotations.masks is not None:
        from detector.data.rasterizing import MASK_SIDE  # late: boxes alone need no masks

        cells = int(np.diff(annotations.first).max(initial=0)) * MASK_SIDE**2
    return (3 * pixels + cells) * batch_size


def _free_handles() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    return None if soft == resource.RLIM_INFINITY else soft - _open_handles()


def _open_handles() -> int:
    listed = Path("/proc/self/fd")
    return len(os.listdir(listed)) if listed.is_dir() else 0


# How a batch travels


def collate_to_memory(samples: Sequence[Sample]) -> Batch | ByPipe:
    """Collate into shared memory, or by pipe if that is full by now.

    torch would move the batch there after this call, in a thread whose errors are lost.
    """
    batch = collate(samples)
    try:
        for tensor in batch.tensors():
            if tensor.numel() > 0:
                tensor.share_memory_()
    except (RuntimeError, OSError):  # no room, or too many open files
        return ByPipe(batch)
    return batch


def collate_to_pipe(samples: Sequence[Sample]) -> ByPipe:
    return ByPipe(collate(samples))


class ByPipe:
    """A wrapper that pickles a record by value; it is unpickled as the record itself."""

    def __init__(self, record: Record) -> None:
        self._kind = type(record)
        self._values = {field.name: _by_value(getattr(record, field.name)) for field in fields(record)}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._kind, self._values)


def _by_value(field: Tensor | Record | None) -> np.ndarray | ByPipe | None:
    if isinstance(field, Record):
        return ByPipe(field)
    return None if field is None else field.numpy()


def _rebuilt(kind: type[Record], values: Mapping[str, Any]) -> Record:
    tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in values.items()}
    return kind(**tensors)


# The images each worker reads


class Ledger:
    """The images that each worker of a loader reads, in memory shared with the main process.

    It is all that is known of a worker that was killed.
    """

    def __init__(self, *, num_workers: int, batch_size: int) -> None:
        self._columns = batch_size + 2  # process id, number of images, their indices
        self._numbers = multiprocessing.RawArray("q", max(1, num_workers) * self._columns)

    def begin(self, worker: int, indices: Sequence[int]) -> None:
        start = worker * self._columns
        self._numbers[start : start + 2 + len(indices)] = [os.getpid(), len(indices), *indices]

    def images_of(self, process_id: int) -> list[int]:
        """Return the indices of the batch that this process read last; empty if it is not a worker."""
        rows = [self._numbers[i : i + self._columns] for i in range(0, len(self._numbers), self._columns)]
        return next((row[2 : 2 + row[1]] for row in rows if row[0] == process_id), [])


class WatchedDataset(Dataset[Sample]):
    """A dataset that reads whole batches of `dataset` and records in `ledger` which worker reads which."""

    def __init__(self, dataset: CocoDataset, ledger: Ledger) -> None:
        self.dataset = dataset
        self.ledger = ledger

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return self.dataset[key]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Sample]:
        worker = get_worker_info()
        if worker is not None:
            self.ledger.begin(worker.id, [index for _, index in keys])
        return [self.dataset[key] for key in keys]
