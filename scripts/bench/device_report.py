"""What scripts/gpu_check.sh writes: correctness and speed on a device, all that is known on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from detector.profiling.noise import random_batch

from .deform import RESNET50, TINY, gpu_table
from .device_check import CHECKS_HEAD, check_row, checks
from .timing import DEFORM_CONV_SHAPES, deform_conv_candidates, first_line, measured_on, times_table
from .train import Model, train_step_candidates

_FLOAT32 = (
    "TF32 is off in the checks, so that their float32 is float32; the timings are with torch's defaults, of "
    "which TF32 in cuDNN's convolutions is one."
)


def write_device_report(path: Path, *, device: str, tiny: bool, repeats: int) -> bool:
    """Checks and timings on `device` ("cuda", "cpu") as Markdown. Returns whether all is well.

    What raises becomes a row or line with "FAILED", and the rest goes on.
    """
    path.write_text("", encoding="utf-8")
    write = partial(_append, path)
    name = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    write(f"{name}. {measured_on()}. Medians of {repeats}. {_FLOAT32}\n\n{CHECKS_HEAD}")
    for check in checks(device):
        write(check_row(check))
    for title, measure in _timings(device, tiny=tiny, repeats=repeats).items():
        try:
            write(f"\n{title}:\n\n{measure()}")
        except Exception as problem:
            write(f"\n{title}: FAILED: {first_line(problem)}")
    return "FAILED" not in path.read_text(encoding="utf-8")


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    print(text, flush=True)


def _timings(device: str, *, tiny: bool, repeats: int) -> dict[str, Callable[[], str]]:
    """The operators, and a training step of both models, in mixed precision on a GPU."""
    shapes = ((1, 16, 8, 8),) if tiny else DEFORM_CONV_SHAPES
    operators = {
        "x".join(map(str, shape)): partial(deform_conv_candidates, shape, device=device) for shape in shapes
    }
    table = partial(times_table, repeats=repeats, device=device, reference="torchvision")
    models: tuple[Model, ...] = ("fcos", "faster_rcnn")
    return {
        "Deformable convolution, forward and backward": partial(table, operators, unit="us"),
        "Deformable layers": partial(gpu_table, repeats=repeats, stages=TINY if tiny else RESNET50),
        **{
            f"Training step of {model}": partial(
                table, {"a step": partial(_steps, model, device, tiny=tiny)}, unit="ms"
            )
            for model in models
        },
    }


def _steps(model: Model, device: str, *, tiny: bool) -> dict[str, Callable[[], object]]:
    size, count = ((64, 64), 1) if tiny else ((1088, 1088), 8)
    batch = random_batch(num_classes=80, image_size=size, batch_size=count)
    autocast = torch.bfloat16 if device == "cuda" else None
    return train_step_candidates(
        model, 18 if tiny else 50, [batch], num_classes=80, device=device, autocast=autocast
    )
