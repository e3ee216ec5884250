"""Guards against derivatives that an operator with its own backward pass does not have."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

Gradients = tuple[Tensor | None, ...]


def refuse_forward_mode(operator: str, *inputs: Tensor | None) -> None:
    """Raise RuntimeError if an input carries a tangent.

    In an operator with only a reverse-mode rule, torch drops the tangent without an error, so that the
    derivative would be 0.
    """
    if torch.compiler.is_compiling():
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in inputs):
        raise RuntimeError(f"{operator} has no forward-mode derivative; differentiate it by backward.")


def once_differentiable(operator: str) -> Callable[[Callable[..., Gradients]], Callable[..., Gradients]]:
    """Decorate an `autograd.Function.backward`: a second derivative raises RuntimeError, naming `operator`.

    torch's decorator of the same name silently omits the second derivative if the incoming gradient is
    constant, like that of a sum.
    """

    def decorate(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
        @wraps(backward)
        def once(ctx: Any, *grads: Tensor) -> Gradients:
            with torch.no_grad():
                gradients = backward(ctx, *grads)
            if torch.compiler.is_compiling() or not torch.is_grad_enabled():
                return gradients
            return tuple(
                None if g is None else _Last.apply(g.detach().requires_grad_(), operator) for g in gradients
            )

        return once

    return decorate


class _Last(torch.autograd.Function):
    """A gradient that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, operator: str) -> Tensor:
        ctx.operator = operator
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> NoReturn:
        raise RuntimeError(
            f"{ctx.operator} can be differentiated once, but a second derivative was requested."
        )
