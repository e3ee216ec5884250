"""What automatic differentiation may ask of an operator with a backward pass of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

Gradients = tuple[Tensor | None, ...]


def refuse_forward_mode(operator: str, *inputs: Tensor | None) -> None:
    """Raise RuntimeError where an input carries a tangent.

    torch drops it without an error in an operator that has a rule for reverse mode only: the derivative would
    be 0.
    """
    if torch.compiler.is_compiling():
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in inputs):
        raise RuntimeError(f"{operator} has no forward-mode derivative; differentiate it by backward.")


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
            f"{ctx.operator} can be differentiated once, but a second derivative was asked for."
        )
