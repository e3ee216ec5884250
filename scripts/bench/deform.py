"""The deformable layers of a ResNet on a GPU, as in training: bfloat16 autocast, by each implementation."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from detector.ops.deform_conv.dispatch import Backend, deform_conv2d
from detector.ops.deform_conv.triton import obstacle

from .timing import times_table

_BATCH, _OFFSET_STD_PX = 8, 2.0


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution that keeps its channels, with padding 1; `size` is (height, width) of its input."""

    channels: int
    size: tuple[int, int]
    stride: int = 1


# The 13 of ResNet-50 at 800x1344; the first of a stage halves the map.
RESNET50 = {
    "C3": (Layer(128, (200, 336), stride=2), *3 * (Layer(128, (100, 168)),)),
    "C4": (Layer(256, (100, 168), stride=2), *5 * (Layer(256, (50, 84)),)),
    "C5": (Layer(512, (50, 84), stride=2), *2 * (Layer(512, (25, 42)),)),
}
TINY = {"C3": (Layer(8, (6, 4), stride=2), Layer(8, (3, 2)))}


@dataclass(frozen=True)
class _Problem:
    """Inputs of a layer in training: what convolutions made is bfloat16, parameters are float32."""

    x: Tensor
    offset: Tensor
    mask: Tensor
    weight: Tensor
    grad: Tensor
    stride: int

    @staticmethod
    def of(layer: Layer, *, batch: int, device: str, memory_format: torch.memory_format) -> _Problem:
        random = torch.Generator().manual_seed(0)
        height, width = ((side - 1) // layer.stride + 1 for side in layer.size)

        def draw(channels: int, *size: int, std: float = 1.0) -> Tensor:
            drawn = torch.randn(batch, channels, *size, generator=random) * std
            return drawn.to(device, torch.bfloat16, memory_format=memory_format)

        weight = torch.randn(layer.channels, layer.channels, 3, 3, generator=random) / layer.channels
        return _Problem(
            x=draw(layer.channels, *layer.size).requires_grad_(),
            offset=draw(18, height, width, std=_OFFSET_STD_PX).requires_grad_(),
            mask=draw(9, height, width).sigmoid().requires_grad_(),
            weight=weight.to(device, memory_format=memory_format).requires_grad_(),
            grad=draw(layer.channels, height, width),
            stride=layer.stride,
        )


def _plain(problem: _Problem) -> Tensor:
    return F.conv2d(problem.x, problem.weight, stride=problem.stride, padding=1)


def _by(backend: Backend, problem: _Problem) -> Tensor:
    return deform_conv2d(
        problem.x,
        problem.offset,
        problem.weight,
        None,
        problem.mask,
        stride=problem.stride,
        padding=1,
        backend=backend,
    )


def _deformops(problem: _Problem) -> Tensor:
    """The package of that name; not a dependency, and it casts nothing."""
    operator = importlib.import_module("deformops.integrations.torchvision").deform_conv2d
    return operator(
        problem.x,
        problem.offset.float(),
        problem.weight.to(problem.x.dtype),
        stride=(problem.stride, problem.stride),
        padding=(1, 1),
        mask=problem.mask.float(),
    )


def _implementations(device: str) -> dict[str, tuple[Callable[[_Problem], Tensor], torch.memory_format]]:
    """Each with the memory format that it works in."""
    implementations: dict[str, tuple[Callable[[_Problem], Tensor], torch.memory_format]] = {
        "plain conv": (_plain, torch.channels_last),
        "torchvision": (partial(_by, "torchvision"), torch.contiguous_format),
    }
    if obstacle(torch.device(device)) is None:
        implementations["triton"] = (partial(_by, "triton"), torch.channels_last)
    if find_spec("deformops") is not None:
        implementations["deformops"] = (_deformops, torch.channels_last)
    return implementations


def candidates(
    layers: tuple[Layer, ...], *, backward: bool, device: str, batch: int = _BATCH
) -> dict[str, Callable[[], object]]:
    """All layers, one after the other, without waiting between them: forward, or forward and backward."""
    precision = partial(torch.autocast, device, torch.bfloat16)
    runs: dict[str, Callable[[], object]] = {}
    for name, (function, memory_format) in _implementations(device).items():
        of_format = partial(_Problem.of, batch=batch, device=device, memory_format=memory_format)
        unique = {layer: of_format(layer) for layer in layers}
        problems = [unique[layer] for layer in layers]
        runs[name] = partial(_run, function, problems, precision, backward=backward)
    return runs


def _run(
    function: Callable[[_Problem], Tensor],
    problems: list[_Problem],
    precision: Callable[[], AbstractContextManager[object]],
    *,
    backward: bool,
) -> None:
    for problem in problems:
        with torch.set_grad_enabled(backward), precision():
            y = function(problem)
        if backward:
            inputs = (problem.x, problem.weight, problem.offset, problem.mask)
            torch.autograd.grad(y, inputs, problem.grad, allow_unused=True)  # a plain one uses no offset


def gpu_table(*, repeats: int, stages: Mapping[str, tuple[Layer, ...]] = RESNET50) -> str:
    """Times of the layers of each stage against torchvision's operator, or why there are none."""
    if not torch.cuda.is_available():
        return "On a GPU: skipped, torch finds none."
    parts = []
    for backward, passes in ((False, "forward"), (True, "forward and backward")):
        rows = {
            stage: partial(candidates, layers, backward=backward, device="cuda")
            for stage, layers in stages.items()
        }
        table = times_table(rows, repeats, device="cuda", reference="torchvision", unit="us")
        parts.append(
            f"The deformable layers of ResNet-50, 800x1344, batch {_BATCH}, bfloat16, {passes}:\n\n{table}"
        )
    reason = obstacle(torch.device("cuda"))
    if reason is not None:
        parts.append(f"triton: skipped, it {reason}")
    if find_spec("deformops") is None:
        parts.append("deformops: skipped, it is not installed.")
    return f"{torch.cuda.get_device_name()}.\n\n" + "\n\n".join(parts)
