"""Measures what docs/benchmarks.md and docs/deformable.md say: `python scripts/benchmark.py ops --write`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from bench import timing as benchmark
from bench.compare import comparison_table
from bench.deform import gpu_table
from bench.index import index_table, masks_index_table
from bench.mask_evaluation import mask_evaluation_table
from bench.masks import rasterizing_table
from bench.memory import peak_memory_mb
from bench.numerics import numerics_table
from bench.paste import paste_table
from bench.swap import swap_table
from bench.train import (
    branch_candidates,
    candidates_of,
    finished_runs,
    inference_candidates,
    train_step_candidates,
)

from detector.cli.allocator import keep_freed_memory
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from detector.profiling.noise import random_batch

DOCS = Path(__file__).resolve().parents[1] / "docs"


def ops(arguments: argparse.Namespace) -> str:
    """Deformable convolution against a plain one and torchvision's operator, on the CPU and a GPU."""
    parts = []
    for title, memory_format, backward in (
        ("Channels last, forward and backward", torch.channels_last, True),
        ("Channels last, forward alone", torch.channels_last, False),
        ("Contiguous, forward and backward", torch.contiguous_format, True),
    ):
        rows = {}
        for shape in benchmark.DEFORM_CONV_SHAPES:
            candidates = benchmark.deform_conv_candidates(
                shape, backward=backward, memory_format=memory_format
            )
            rows["x".join(map(str, shape))] = benchmark.interleaved_medians(candidates, arguments.repeats)
        total = {name: sum(times[name] for times in rows.values()) for name in candidates}
        speedup = total["torchvision"] / total["gather"]
        table = benchmark.markdown_comparison(rows, reference="plain conv")
        summary = f"Together, gather is {speedup:.1f} times as fast as torchvision's operator."
        parts.append(f"{title}:\n\n{table}\n\n{summary}")
    return "\n\n".join([*parts, gpu_table(repeats=arguments.repeats)])


def train(arguments: argparse.Namespace) -> str:
    """Training steps and detections, 256 x 256, batch 4, against torchvision's."""
    batches = [random_batch(num_classes=80)]
    parts = []
    for model, title in (("fcos", "FCOS"), ("faster_rcnn", "Faster R-CNN")):
        for make, mode in ((train_step_candidates, "training step"), (inference_candidates, "inference")):
            rows = {}
            for depth in (18, 50):
                candidates = make(model, depth, batches, num_classes=80)
                rows[f"ResNet-{depth}"] = benchmark.interleaved_medians(candidates, arguments.repeats)
            table = benchmark.markdown_comparison(rows, reference="torchvision")
            parts.append(f"{title}, {mode}:\n\n{table}")
    return "\n\n".join(parts)


def branches(arguments: argparse.Namespace) -> str:
    """Training steps with masks and with keypoints, and their memory, against torchvision's."""
    models = (("mask_rcnn", "Mask R-CNN"), ("keypoint_rcnn", "Keypoint R-CNN"))
    memory = {title: peak_memory_mb(partial(branch_candidates, model)) for model, title in models}
    times = {
        title: benchmark.interleaved_medians(branch_candidates(model), arguments.repeats)
        for model, title in models
    }
    compared = partial(benchmark.markdown_comparison, reference="torchvision", together=False)
    return f"{compared(times)}\n\n{compared(memory, unit='MB')}"


def swap(arguments: argparse.Namespace) -> str:
    """Training steps of torchvision's ResNet-50, plain and with swapped convolutions."""
    return swap_table(repeats=arguments.repeats)


def memory(arguments: argparse.Namespace) -> str:
    """Memory of the same at its peak, above that of the models before."""
    rows = {
        f"{title}, ResNet-{depth}, {mode}": peak_memory_mb(partial(candidates_of, model, depth, mode))
        for model, title in (("fcos", "FCOS"), ("faster_rcnn", "Faster R-CNN"))
        for mode in ("training step", "inference")
        for depth in (18, 50)
    }
    return benchmark.markdown_comparison(rows, reference="torchvision", unit="MB", together=False)


def ops_memory(arguments: argparse.Namespace) -> str:
    """Memory of deformable convolution at its peak, forward and backward, on the CPU."""
    rows = {}
    for shape in benchmark.DEFORM_CONV_SHAPES:
        make = partial(benchmark.deform_conv_candidates, shape, memory_format=torch.channels_last)
        rows["x".join(map(str, shape))] = peak_memory_mb(make)
    return benchmark.markdown_comparison(rows, reference="torchvision", unit="MB", together=False)


def bccd(arguments: argparse.Namespace) -> str:
    """Finished runs (--runs), and a training step of FCOS R18 on the batches of the dataset (--root)."""
    data = DetectionDataModule(
        root=str(arguments.root),
        image_size=ImageSize(min_size=240, max_size=320),
        batch_size=4,
        val_batch_size=4,
        num_workers=0,
        seed=0,
    )
    data.setup("fit")
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(arguments.repeats), strict=False)]
    candidates = train_step_candidates("fcos", 18, batches, num_classes=data.num_classes)
    times = benchmark.interleaved_medians(candidates, arguments.repeats)
    table = benchmark.markdown_comparison({"a step": times}, reference="torchvision")
    steps = len(data.train_dataloader())
    epochs = ", ".join(f"{name} {steps * ms / 1000:.0f} s" for name, ms in times.items())
    return f"{finished_runs(arguments.runs)}\n\n{table}\n\nThe {steps} steps of an epoch: {epochs}."


def index(arguments: argparse.Namespace) -> str:
    """Reading a dataset of COCO's size (--root, made by make_large_coco.py), boxes alone and with masks."""
    return f"{index_table(arguments.root)}\n\n{masks_index_table(arguments.root)}"


def masks(arguments: argparse.Namespace) -> str:
    """Masks: polygons of a COCO file (--root) drawn for training, detections pasted, encoded and scored."""
    drawn = rasterizing_table(arguments.root / "train.json", repeats=arguments.repeats)
    return f"{drawn}\n\n{paste_table(repeats=arguments.repeats)}\n\n{mask_evaluation_table()}"


def compare(arguments: argparse.Namespace) -> str:
    """The intervals of a comparison on a problem of COCO's size."""
    return comparison_table()


def numerics(arguments: argparse.Namespace) -> str:
    """Errors of deformable convolution against float64, by backend and dtype."""
    return numerics_table("cuda" if torch.cuda.is_available() else "cpu")


SECTIONS = {
    "ops": ops,
    "ops_memory": ops_memory,
    "numerics": numerics,
    "train": train,
    "memory": memory,
    "swap": swap,
    "branches": branches,
    "bccd": bccd,
    "index": index,
    "masks": masks,
    "compare": compare,
}


TIMED_IN_TURNS = ("ops", "train", "swap", "branches", "bccd")
DOCUMENTS = {"numerics": DOCS / "deformable.md"}  # of the sections that are not in benchmarks.md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument(
        "--repeats", type=int, default=9, help="timed runs of each candidate; medians are shown"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--root", type=Path, help="bccd, index, masks: the dataset's folder")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="bccd: folders of finished runs")
    parser.add_argument("--write", action="store_true", help="update that section of its document")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the command does
    text = SECTIONS[arguments.section](arguments)
    text += f"\n\nMeasured on {benchmark.measured_on()}."
    if arguments.section in TIMED_IN_TURNS:
        text += f" Medians of {arguments.repeats}."
    print(text)
    if arguments.write:
        document = DOCUMENTS.get(arguments.section, DOCS / "benchmarks.md")
        benchmark.replace_section(document, name=arguments.section, text=text)


if __name__ == "__main__":
    main()
