"""How batches come from loader processes, and what is known where they do not."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from detector.data.collate import collate
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from detector.data.workers import (
    ByPipe,
    Ledger,
    Limits,
    Loading,
    collate_to_memory,
    collate_to_pipe,
    plan_loading,
)
from detector.structures import Batch
from tests.coco.small_coco import write_dataset

MB = 10**6
ROOM = Limits(shared_bytes=10**10, handles=4000)


def plan(limits: Limits, *, num_workers: int = 2, ranks: int = 1) -> Loading:
    return plan_loading(num_workers, batch_bytes=20 * MB, ranks=ranks, limits=limits)


@pytest.mark.parametrize("limits", [ROOM, Limits(shared_bytes=None, handles=None)])
def test_with_room_batches_travel_in_shared_memory(limits: Limits) -> None:
    assert plan(limits) == Loading(2, "memory")


def test_a_containers_64_mb_are_too_small_for_large_batches_and_pipes_take_them() -> None:
    loading = plan(Limits(shared_bytes=64 * MB, handles=4000))
    assert (loading.num_workers, loading.travel) == (2, "pipe")
    for words in ("/dev/shm has 64.0 MB free", "160.", "--shm-size", "data.num_workers=0"):
        assert words in loading.note


def test_devices_of_a_machine_share_its_memory() -> None:
    limits = Limits(shared_bytes=200 * MB, handles=4000)
    assert plan(limits).travel == "memory"
    assert plan(limits, ranks=2).travel == "pipe"


def test_few_open_files_leave_pipes() -> None:
    loading = plan(Limits(shared_bytes=None, handles=100))
    assert (loading.num_workers, loading.travel) == (2, "pipe")
    assert "100 more files can be open" in loading.note
    assert "ulimit -n" in loading.note


@pytest.mark.parametrize(
    "limits", [Limits(shared_bytes=0, handles=None), Limits(shared_bytes=None, handles=20)]
)
def test_without_room_for_locks_or_pipes_the_main_process_loads(limits: Limits) -> None:
    loading = plan(limits)
    assert loading.num_workers == 0
    assert "main process loads instead" in loading.note
    assert plan(limits, num_workers=0) == Loading(0)


# --- batches


def make(root: Path, *, num_workers: int = 0) -> DetectionDataModule:
    module = DetectionDataModule(
        root=str(write_dataset(root)),
        image_size=ImageSize(24, 32),
        batch_size=2,
        val_batch_size=2,
        num_workers=num_workers,
        seed=0,
    )
    module.setup("fit")
    return module


def tensors(batch: Batch) -> Iterator[torch.Tensor]:
    yield from (batch.images, batch.image_sizes, batch.original_sizes, batch.indices)
    yield from (batch.targets.boxes, batch.targets.labels, batch.targets.valid)


def assert_same(one: Batch, other: Batch) -> None:
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_by_pipe_arrives_as_it_was(tmp_path: Path, count: int) -> None:
    dataset = make(tmp_path).train_set
    samples = [dataset[0, index] for index in range(count)]
    arrived = pickle.loads(pickle.dumps(collate_to_pipe(samples)))
    assert_same(arrived, collate(samples))
    arrived.targets.boxes.add_(1)  # its own memory


def test_full_shared_memory_in_the_middle_of_a_run_leaves_the_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make(tmp_path).train_set
    assert isinstance(collate_to_memory([dataset[0, 0]]), Batch)

    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert isinstance(collate_to_memory([dataset[0, 0]]), ByPipe)


def test_workers_give_the_same_batches_by_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = list(make(tmp_path / "a").val_dataloader())
    monkeypatch.setattr(Limits, "of_this_machine", classmethod(lambda cls: cls(300_000, 100)))
    by_pipe = make(tmp_path / "b", num_workers=1)
    for one, other in zip(alone, by_pipe.val_dataloader(), strict=True):
        assert_same(one, other)


def test_the_lack_of_room_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Limits, "of_this_machine", classmethod(lambda cls: cls(0, None)))
    module = make(tmp_path, num_workers=2)
    assert module.train_dataloader().num_workers == module.val_dataloader().num_workers == 0
    assert caplog.text.count("data.num_workers=2: /dev/shm has 0.0 MB free") == 1


def test_the_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        free = Limits.of_this_machine().handles
        assert free is None or free > min(before[1], 4096) - 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- what a worker reads


def _begin(ledger: Ledger, worker: int, indices: list[int]) -> None:
    ledger.begin(worker, indices)


def test_the_ledger_knows_what_another_process_read_last() -> None:
    ledger = Ledger(num_workers=2, batch_size=3)
    process = multiprocessing.get_context("fork").Process(target=_begin, args=(ledger, 1, [5, 7]))
    process.start()
    process.join()
    ledger.begin(0, [1, 2, 3])
    assert process.pid is not None
    assert ledger.images_of(process.pid) == [5, 7]
    assert ledger.images_of(os.getpid()) == [1, 2, 3]
    assert ledger.images_of(-1) == []


def test_the_images_of_a_worker_are_told_by_id_and_file(tmp_path: Path) -> None:
    module = make(tmp_path, num_workers=1)
    batches = iter(module.val_dataloader())
    next(batches)
    (worker,) = {process.pid for process in multiprocessing.active_children()}
    assert worker is not None
    images = module.images_of_worker(worker)
    assert images
    assert all(".jpg" in image and "(" in image for image in images)
    del batches
