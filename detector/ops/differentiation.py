"""What automatic differentiation may ask of an operator with a backward pass of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

Gradients = tuple[Tensor | None, ...]


def is_transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp, ...) runs this call.

    They know torch's operators, and no `autograd.Function` that writes in place. Forward mode likewise.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batched(grad: Tensor) -> bool:
    """Whether it stands for many gradients at once (`is_grads_batched` of `torch.autograd.grad`)."""
    return torch._C._functorch.is_batchedtensor(grad) or torch._C._functorch.is_legacy_batchedtensor(grad)


def once_differentiable(operator: str) -> Callable[[Callable[..., Gradients]], Callable[..., Gradients]]:
    """Of an `autograd.Function.backward`: a second derivative raises RuntimeError, with the name `operator`.

    torch's decorator of that name leaves the second derivative out, in silence, where the gradient it gets is
    constant, as that of a sum is.
    """

    def decorate(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
        @wraps(backward)
        def once(ctx: Any, *grads: Tensor) -> Gradients:
            with torch.no_grad():
                found = backward(ctx, *grads)
            if torch.compiler.is_compiling() or not torch.is_grad_enabled():
                return found
            return tuple(
                None if g is None else _Last.apply(g.detach().requires_grad_(), operator) for g in found
            )

        return once

    return decorate


class _Last(torch.autograd.Function):
    """A gradient that has none."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, operator: str) -> Tensor:
        ctx.operator = operator
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> NoReturn:
        raise RuntimeError(
            f"{ctx.operator} can be differentiated once, but a second derivative was asked for. On a CPU "
            "torch.func's transforms, such as torch.func.hessian, have it (of pooling with a sampling_ratio "
            "above 0): slower, and in more memory."
        )
