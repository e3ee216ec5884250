"""What reading a large dataset costs: time, and the memory of the process and of its loader's workers."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
from collections.abc import Mapping
from pathlib import Path

from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from detector.option_types import TaskName

from .timing import markdown_row

_SETTLED = 100  # batches until every worker has loaded what it needs, and between two looks


def index_table(root: Path, *, num_workers: int = 4) -> str:
    """Reads the dataset in `root`, then loads a whole epoch of small images. Linux only.

    Memory is the proportional set size: a page that n processes share counts 1/n in each.
    """
    data = DetectionDataModule(
        root=str(root),
        image_size=ImageSize(min_size=96, max_size=128),
        batch_size=64,
        val_batch_size=64,
        num_workers=num_workers,
        seed=0,
    )
    before_mb, wall, processor = _memory_mb(), time.perf_counter(), time.process_time()
    data.setup("fit")
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    kept_mb = _memory_mb() - before_mb
    memory_mb: list[float] = []
    for number, _ in enumerate(data.train_dataloader(), start=1):
        if number % _SETTLED == 0:
            memory_mb.append(_memory_mb())
    annotations = data.train_set.annotations
    rows = (
        ("images", f"{len(annotations):,}"),
        ("boxes", f"{len(annotations.labels):,}"),
        ("indexed and checked, s", f"{wall:.1f}"),
        ("of it processor time, s", f"{processor:.1f}"),
        ("kept in memory, MB", f"{kept_mb:.0f}"),
        (f"all processes with {num_workers} workers, after {_SETTLED} batches, MB", f"{memory_mb[0]:.0f}"),
        (f"the most later in the epoch of {number} batches, MB", f"{max(memory_mb):.0f}"),
    )
    return "\n".join([markdown_row(["", ""]), markdown_row(["---", "---:"]), *map(markdown_row, rows)])


def masks_index_table(root: Path) -> str:
    """Reads the training split in `root` with boxes alone and with masks, each in a process of its own."""
    kinds: dict[str, tuple[TaskName, ...]] = {"boxes": (), "boxes and masks": ("segm",)}
    columns = {name: _read_apart(root, tasks) for name, tasks in kinds.items()}
    rows = [
        ["", *columns, "ratio"],
        ["---", *["---:"] * 3],
        *(
            [
                label,
                *(f"{figures[place]:.1f}" for figures in columns.values()),
                f"{_ratio(columns, place):.2f}",
            ]
            for place, label in enumerate(("indexed and checked, s", "kept in memory, MB", "at most, MB"))
        ),
    ]
    return "\n".join(map(markdown_row, rows))


def _ratio(columns: Mapping[str, tuple[float, ...]], place: int) -> float:
    before, after = (figures[place] for figures in columns.values())
    return after / before


def _read_apart(root: Path, tasks: tuple[TaskName, ...]) -> tuple[float, ...]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_reading_costs, (root, tasks))


def _reading_costs(root: Path, tasks: tuple[TaskName, ...]) -> tuple[float, float, float]:
    """Return processor time in s, and the memory in MB that stays, and at its peak."""
    from detector.coco.reader import read_coco

    gc.collect()
    before_mb, start = _memory_mb(), time.process_time()
    annotations = read_coco(root / "train.json", root / "images", tasks=tasks)
    seconds, kept_mb = time.process_time() - start, _memory_mb() - before_mb
    assert (annotations.masks is not None) == ("segm" in tasks)
    return seconds, kept_mb, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _memory_mb() -> float:
    """Proportional set size of this process and its children."""
    processes = ["self", *(str(child.pid) for child in multiprocessing.active_children())]
    return sum(_proportional_kb(name) for name in processes) / 1000


def _proportional_kb(process: str) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
