"""What the operators cannot differentiate is an error, never a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, hessian, jvp, vmap

from detector.ops.cpu.winograd import winograd_conv3x3
from detector.ops.deform_conv.depthwise import deform_sampled_sum
from detector.ops.deform_conv.dispatch import Backend, deform_conv2d
from detector.ops.deform_roi_pool import pyramid_deform_roi_pool
from detector.ops.roi_align import pyramid_roi_align

BOXES = torch.tensor([[1.0, 2, 20, 17], [3, 0, 12, 30]], dtype=torch.float64)
IMAGE = torch.tensor([0, 0])


def convolved(x: Tensor, offset: Tensor, weight: Tensor, backend: Backend = "auto") -> Tensor:
    return deform_conv2d(x, offset[:, :18], weight, mask=offset[:, 18:], padding=1, backend=backend)


def summed(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """With 32 channels a group, of which gather is the fastest."""
    wide = x.repeat(1, 16, 1, 1) * weight.sum()
    return deform_sampled_sum(wide, offset[:, :18], offset[:, 18:], kernel_size=3, padding=1)


def pooled(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    shift = offset[0, :8].reshape(2, 2, -1)[:, :, :4].unflatten(2, (2, 2))
    return pyramid_deform_roi_pool([x * weight.sum()], [4], BOXES, IMAGE, shift)


def aligned(x: Tensor, offset: Tensor, weight: Tensor, sampling_ratio: int = 2) -> Tensor:
    features = [x * weight.sum() * offset.mean()]
    return pyramid_roi_align(features, [4], BOXES, IMAGE, output_size=2, sampling_ratio=sampling_ratio)


def winograd(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return winograd_conv3x3([x * offset.mean()], weight, None)[0]


OPERATORS = pytest.mark.parametrize(
    "operator",
    [
        convolved,
        partial(convolved, backend="torchvision"),
        summed,
        pooled,
        aligned,
        partial(aligned, sampling_ratio=0),
        winograd,
    ],
    ids=["gather", "torchvision", "summed", "pooled", "aligned", "aligned_by_torchvision", "winograd"],
)
Operator = Callable[[Tensor, Tensor, Tensor], Tensor]


def problem(images: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x, offset with mask, weight, in float64; places stay away from pixels, where the slope jumps."""
    random = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=random, dtype=torch.float64)

    offset = draw(images, 27, 6, 5)
    offset[:, :18] = offset[:, :18].floor() + 0.15 + 0.7 * torch.rand(images, 18, 6, 5, generator=random)
    return draw(images, 2, 6, 5), offset, draw(3, 2, 3, 3)


@OPERATORS
@pytest.mark.parametrize(
    "transform", [grad, hessian, lambda f: vmap(grad(f))], ids=["grad", "hessian", "vmap"]
)
def test_transforms_of_torch_func_are_refused(
    operator: Operator, transform: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]
) -> None:
    x, *others = problem()
    with pytest.raises(RuntimeError):
        transform(lambda x: operator(x.view(1, 2, 6, 5), *others).sum())(x)


@OPERATORS
def test_forward_mode_is_refused(operator: Operator) -> None:
    """Also by torchvision's operators, which would leave out the tangent."""
    x, *others = problem()
    with pytest.raises((RuntimeError, NotImplementedError)):
        jvp(lambda x: operator(x, *others), (x,), (x,))
    with forward_ad.dual_level(), pytest.raises((RuntimeError, NotImplementedError)):
        operator(forward_ad.make_dual(x, x), *others)


@pytest.mark.parametrize("reduce", [torch.sum, lambda y: y.sin().sum()], ids=["constant", "varying"])
@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (partial(deform_conv2d, padding=1, backend="gather"), "deform_conv2d: backend gather can be"),
        (lambda x, offset, weight: pooled(x, offset, weight), "Pooling of regions or depth-wise .* can be"),
    ],
    ids=["gather", "bags"],
)
def test_a_second_derivative_by_backward_is_refused(
    operator: Operator, message: str, reduce: Callable[[Tensor], Tensor]
) -> None:
    """Also where the gradient that comes in is constant: the second derivative is not."""
    x, offset, weight = (t.requires_grad_() for t in problem())
    (gradient,) = torch.autograd.grad(reduce(operator(x, offset[:, :18], weight)), x, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{message} differentiated once"):
        gradient.square().sum().backward()


def test_torchvisions_operator_is_asked_for_no_values_where_there_are_none() -> None:
    x, offset, weight = problem(images=2)
    run = partial(deform_conv2d, weight=weight, padding=1, backend="torchvision")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        shape = run(*(mode.from_tensor(t) for t in (x, offset[:, :18]))).shape
    assert shape == run(x, offset[:, :18]).shape
