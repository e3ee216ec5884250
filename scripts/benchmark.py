"""Measures what docs/benchmarks.md claims: `python scripts/benchmark.py ops --write`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from detector.reports import benchmark
from detector.reports.benchmark_train import train_step_candidates

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def ops(repeats: int) -> str:
    """Deformable convolution against a plain one and torchvision's operator."""
    rows = {}
    for shape in benchmark.DEFORM_CONV_SHAPES:
        candidates = benchmark.deform_conv_candidates(shape)
        rows["x".join(map(str, shape))] = benchmark.interleaved_medians(candidates, repeats=repeats)
    total = {name: sum(times[name] for times in rows.values()) for name in candidates}
    speedup = (
        f"gather is {total['torchvision'] / total['gather']:.1f} times as fast as torchvision's operator"
    )
    return f"{benchmark.markdown_comparison(rows, reference='plain conv')}\n\nTogether, {speedup}."


def train(repeats: int) -> str:
    """A training step of FCOS, 256 x 256, batch 4, against torchvision's."""
    rows = {}
    for depth in (18, 50):
        candidates = train_step_candidates(depth)
        rows[f"ResNet-{depth}"] = benchmark.interleaved_medians(candidates, repeats=repeats)
    return benchmark.markdown_comparison(rows, reference="torchvision")


SECTIONS = {"ops": ops, "train": train}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed runs of each candidate; medians are shown"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help=f"update that section of {DOCUMENT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = f"{SECTIONS[arguments.section](arguments.repeats)}\n\nMeasured on {benchmark.environment()}."
    print(text)
    if arguments.write:
        benchmark.replace_section(DOCUMENT, name=arguments.section, text=text)


if __name__ == "__main__":
    main()
