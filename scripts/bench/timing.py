"""Timings that can be compared: interleaved runs, medians, ratios of one run, and where they were taken."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import torchvision
from torch.nn import functional as F

from detector.environment import processor_name
from detector.ops.deform_conv.dispatch import Backend, deform_conv2d
from detector.ops.deform_conv.triton import obstacle
from detector.profiling.latency import interleaved_times

# C3, C4, C5 of a ResNet at 800x1088, batch 2: (N, C, H, W)
DEFORM_CONV_SHAPES = ((2, 128, 100, 136), (2, 256, 50, 68), (2, 512, 25, 34))

Milliseconds = Mapping[str, float]
Candidates = Mapping[str, Callable[[], object]]
Unit = Literal["ms", "us"]


def interleaved_medians(candidates: Candidates, repeats: int, *, device: str = "cpu") -> Milliseconds:
    """Median time of each candidate in ms after a warm-up. They take turns: disturbances meet all of them."""
    times = interleaved_times(candidates, rounds=repeats, device=device)
    return {name: median(values) for name, values in times.items()}


def times_table(
    rows: Mapping[str, Callable[[], Candidates]], repeats: int, *, device: str, reference: str, unit: Unit
) -> str:
    """Median times of what each row makes, as `markdown_comparison` shows them.

    A row or candidate that raises is FAILED, with its first line below the table; the others are timed.
    """
    times: dict[str, dict[str, float]] = {}
    failures: list[str] = []
    for label, make in rows.items():
        try:
            candidates = make()
        except Exception as problem:  # such as too little memory: of the next row it may be enough
            failures.append(f"{label}: FAILED: {first_line(problem)}")
            continue
        problems = {name: _problem(run, device) for name, run in candidates.items()}
        failures += [f"{label}, {name}: FAILED: {message}" for name, message in problems.items() if message]
        sound = {name: run for name, run in candidates.items() if not problems[name]}
        medians = interleaved_medians(sound, repeats, device=device) if sound else {}
        factor = {"ms": 1, "us": 1000}[unit]
        times[label] = {name: factor * medians.get(name, math.nan) for name in candidates}
    table = [markdown_comparison(times, reference=reference, unit=unit)] if times else []
    return "\n\n".join([*table, *failures])


def _problem(run: Callable[[], object], device: str) -> str | None:
    """What the first line of its exception says, if it raises."""
    try:
        run()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()  # a kernel's failure shows later
    except Exception as problem:
        return first_line(problem)
    return None


def first_line(problem: Exception) -> str:
    """Of what it says, fit for a table's cell."""
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0]}".replace("|", "\\|")


def deform_conv_candidates(
    shape: tuple[int, int, int, int],
    *,
    backward: bool = True,
    memory_format: torch.memory_format = torch.contiguous_format,
    offset_std_px: float = 2.0,
    device: str = "cpu",
) -> dict[str, Callable[[], object]]:
    """A 3x3 convolution that keeps its channels: plain, deformable by each backend.

    Forward, and backward for all inputs. fp32, modulated; offsets as spread as trained ones, since zero
    offsets flatter.
    """
    n, c, h, w = shape
    random = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=random).to(device, memory_format=memory_format)

    x, weight, grad = draw(*shape), draw(c, c, 3, 3), draw(*shape)
    bias = torch.randn(c, generator=random).to(device)
    offset, mask = draw(n, 18, h, w) * offset_std_px, draw(n, 9, h, w).sigmoid()
    inputs = (x, offset, weight, bias, mask)
    for tensor in inputs:
        tensor.requires_grad_(backward)

    def plain() -> object:
        y = F.conv2d(x, weight, bias, padding=1)
        return torch.autograd.grad(y, (x, weight, bias), grad) if backward else y

    def deformable(backend: Backend) -> object:
        y = deform_conv2d(*inputs, padding=1, backend=backend)
        return torch.autograd.grad(y, inputs, grad) if backward else y

    backends: tuple[Backend, ...] = ("gather", "torchvision")
    if torch.device(device).type == "cuda" and obstacle(torch.device(device)) is None:
        backends += ("triton",)
    return {"plain conv": plain, **{backend: partial(deformable, backend) for backend in backends}}


def markdown_comparison(
    rows: Mapping[str, Mapping[str, float]], *, reference: str, unit: str = "ms", together: bool = True
) -> str:
    """A table of numbers in `unit` with their ratio to `reference`; of several rows, a last one with sums.

    NaN is what failed, and has no ratio.
    """
    names = list(next(iter(rows.values())))
    total = {name: sum(times[name] for times in rows.values()) for name in names}
    ratios = [name for name in names if name != reference]
    header = ["", *(f"{name}, {unit}" for name in names), *(f"{name} / {reference}" for name in ratios)]
    lines = [markdown_row(header), markdown_row(["---"] + ["---:"] * (len(header) - 1))]
    sums = {"together": total} if together and len(rows) > 1 else {}
    for label, times in {**rows, **sums}.items():
        relative = [_shown(times[name] / times[reference], digits=2, missing="") for name in ratios]
        numbers = [_shown(times[name], digits=0, missing="FAILED") for name in names]
        lines.append(markdown_row([label, *numbers, *relative]))
    return "\n".join(lines)


def _shown(number: float, *, digits: int, missing: str) -> str:
    return missing if math.isnan(number) else f"{number:.{digits}f}"


def markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def measured_on() -> str:
    """One line: processor, threads, versions, date."""
    return (
        f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, {datetime.date.today()}"
    )


def replace_section(document: Path, *, name: str, text: str) -> None:
    """Puts `text` between the lines `<!-- name:begin -->` and `<!-- name:end -->` of the document."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    content = document.read_text()
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"{document} must hold the lines {begin.strip()} and {end}, each once.")
    before, after = content.split(begin)[0], content.split(end)[1]
    document.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")
