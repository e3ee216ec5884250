"""Correctness and speed on a device, as a report: see gpu_check.sh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from detector.models.noise import random_batch
from detector.reports import benchmark
from detector.reports.benchmark_deform import RESNET50, TINY, gpu_table
from detector.reports.benchmark_train import train_step_candidates
from detector.reports.device_check import checks, checks_table


def speed(arguments: argparse.Namespace) -> str:
    """The operator and a training step of both models, in mixed precision on a GPU."""
    device, tiny, repeats = arguments.device, arguments.tiny, arguments.repeats
    shapes = ((1, 16, 8, 8),) if tiny else benchmark.DEFORM_CONV_SHAPES
    ops = {
        "x".join(map(str, shape)): benchmark.interleaved_medians(
            benchmark.deform_conv_candidates(shape, device=device), repeats, device=device
        )
        for shape in shapes
    }
    parts = [
        "Deformable convolution, forward and backward:",
        benchmark.markdown_comparison(ops, reference="torchvision"),
        gpu_table(repeats=repeats, stages=TINY if tiny else RESNET50),
    ]
    autocast = torch.bfloat16 if device == "cuda" else None
    size = (64, 64) if tiny else (1088, 1088)
    batch = random_batch(num_classes=80, image_size=size, batch_size=1 if tiny else 8)
    for model in ("fcos", "faster_rcnn"):
        candidates = train_step_candidates(
            model, 18 if tiny else 50, [batch], num_classes=80, device=device, autocast=autocast
        )
        times = benchmark.interleaved_medians(candidates, repeats, device=device)
        table = benchmark.markdown_comparison({"a step": times}, reference="torchvision")
        parts += [f"Training step of {model}, images {tuple(batch.images.shape)}:", table]
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does the script run at all?")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("gpu_check.md"))
    arguments = parser.parse_args()
    found = list(checks(arguments.device))
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "no GPU"
    head = f"{name}. {benchmark.measured_on()}. Medians of {arguments.repeats}."
    arguments.output.write_text(f"{head}\n\n{checks_table(found)}\n\n{speed(arguments)}\n", encoding="utf-8")
    print(arguments.output.read_text(encoding="utf-8"))
    return int(not all(check.passed for check in found))


if __name__ == "__main__":
    sys.exit(main())
