"""How exact each implementation of deformable convolution is: relative errors against float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d as torchvision_operator

from detector.ops.deform_conv.dispatch import Backend, deform_conv2d

from .timing import markdown_row

_SHAPE = (1, 32, 12, 168)  # wide: half-precision coordinates are wrong by up to 1/16 pixel beyond 128
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_COLUMNS = ("y", "dx", "d offset", "d mask", "dW")

Operator = Callable[..., Tensor]


def numerics_table(device: str) -> str:
    """Markdown: of the result and each gradient, the norm of the error relative to the norm, for each backend
    and dtype, and for torchvision's operator when called directly. "none" where it has no kernel."""
    arguments = _arguments()
    header = ["", "dtype", *_COLUMNS]
    lines = [markdown_row(header), markdown_row(["---", "---", *["---:"] * len(_COLUMNS)])]
    for name, operator in _operators().items():
        for dtype in _DTYPES:
            rounded = [tensor.to(dtype) for tensor in arguments]
            errors = _errors(operator, rounded, device)
            lines.append(markdown_row([name, str(dtype).removeprefix("torch."), *errors]))
    return "\n".join(lines)


def _operators() -> dict[str, Operator]:
    backends = [name for name in get_args(Backend) if name != "auto"]
    ours: dict[str, Operator] = {
        f"`backend={name}`": partial(deform_conv2d, backend=name, padding=1) for name in backends
    }
    return {**ours, "torchvision's operator itself": _theirs}


def _theirs(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return torchvision_operator(x, offset, weight, bias, padding=1, mask=mask)


def _arguments() -> list[Tensor]:
    """x, offset, weight, bias, mask, and the gradient of y.

    Offsets keep 0.1 px from integers, where the gradient has a kink that rounding may take either way.
    """
    random = torch.Generator().manual_seed(0)
    n, c, h, w = _SHAPE

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=random, dtype=torch.float64)

    offset = 2 * draw(n, 18, h, w)
    offset = offset.floor() + 0.1 + 0.8 * (offset - offset.floor())
    weight = draw(c, c, 3, 3) / (3 * c**0.5)
    return [draw(*_SHAPE), offset, weight, draw(c), draw(n, 9, h, w).sigmoid(), draw(*_SHAPE)]


def _errors(operator: Operator, arguments: Sequence[Tensor], device: str) -> list[str]:
    """Of each column; the arguments' own rounding does not count."""
    reference = partial(deform_conv2d, backend="torchvision", padding=1)
    exact = _results(reference, [tensor.double() for tensor in arguments])
    try:
        actual = _results(operator, [tensor.to(device) for tensor in arguments])
    except (RuntimeError, ValueError):
        return ["none"] * len(exact)
    pairs = zip(actual, exact, strict=True)
    return [f"{float((a.double().cpu() - b).norm() / b.norm()):.1e}" for a, b in pairs]


def _results(operator: Operator, arguments: Sequence[Tensor]) -> list[Tensor]:
    *inputs, grad = arguments
    x, offset, weight, bias, mask = (tensor.clone().requires_grad_() for tensor in inputs)
    y = operator(x, offset, weight, bias, mask)
    return [y.detach(), *torch.autograd.grad(y, (x, offset, mask, weight), grad)]
