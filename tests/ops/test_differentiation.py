"""Transforms of torch.func, and second derivatives: right, or refused in words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jacrev, jvp, vmap

from detector.backbones.resnet import ResNet
from detector.heads.fcos import FCOSHead
from detector.layers.deform import DeformableStages, DeformConv2d
from detector.models.detector import assemble
from detector.necks.fpn import FPN
from detector.ops.deform_conv import deform_conv2d
from detector.ops.deform_conv.depthwise import deform_sampled_sum
from detector.ops.deform_roi_pool import pyramid_deform_roi_pool
from detector.ops.roi_align import pyramid_roi_align
from detector.profiling.noise import random_batch

BOXES, IMAGE = torch.tensor([[1.0, 2, 20, 17], [3, 0, 12, 30]]), torch.tensor([0, 0])


def convolved(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return deform_conv2d(x, offset[:, :18], weight, mask=offset[:, 18:], padding=1)


def summed(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """With 32 channels a group, of which gather is the fastest."""
    wide = x.repeat(1, 16, 1, 1) * weight.sum()
    return deform_sampled_sum(wide, offset[:, :18], offset[:, 18:], kernel_size=3, padding=1)


def pooled(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    shift = offset[0, :8].reshape(2, 2, -1)[:, :, :4].unflatten(2, (2, 2))
    return pyramid_deform_roi_pool([x * weight.sum()], [4], BOXES, IMAGE, shift)


def aligned(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return pyramid_roi_align([x * weight.sum() * offset.mean()], [4], BOXES, IMAGE, output_size=2)


OPERATORS = pytest.mark.parametrize(
    "operator", [convolved, summed, pooled, aligned], ids=lambda f: f.__name__
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
def test_grad_is_that_of_backward(operator: Operator) -> None:
    inputs = problem()
    expected = gradients(operator, *inputs)
    found = grad(lambda *given: operator(*given).sin().sum(), argnums=(0, 1, 2))(*inputs)
    torch.testing.assert_close(found, expected)


def gradients(operator: Operator, *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [t.detach().requires_grad_() for t in inputs]
    return torch.autograd.grad(operator(*leaves).sin().sum(), leaves)


@OPERATORS
def test_vmap_gives_each_image_its_own_gradients(operator: Operator) -> None:
    x, offset, weight = problem(images=3)

    def loss(w: Tensor, one: Tensor, its_offset: Tensor) -> Tensor:
        return operator(one[None], its_offset[None], w).sin().sum()

    found = vmap(grad(loss), in_dims=(None, 0, 0))(weight, x, offset)
    expected = [gradients(operator, x[i : i + 1], offset[i : i + 1], weight)[2] for i in range(3)]
    torch.testing.assert_close(found, torch.stack(expected))


@OPERATORS
def test_the_second_derivative_is_the_slope_of_the_first(operator: Operator) -> None:
    inputs, step = problem(), 1e-6
    direction = tuple(0.1 * t.flip(-1) for t in inputs)
    first = grad(lambda *given: operator(*given).sin().sum(), argnums=(0, 1, 2))
    _, found = jvp(first, inputs, direction)
    after, before = (
        gradients(operator, *(t + s * d for t, d in zip(inputs, direction, strict=True)))
        for s in (step, -step)
    )
    expected = tuple((a - b) / (2 * step) for a, b in zip(after, before, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


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
    with pytest.raises(RuntimeError, match=f"{message} differentiated once.*torch.func"):
        gradient.square().sum().backward()


def test_a_layer_has_a_jacobian() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(2, 3, 3, padding=1).double()
    nn.init.normal_(layer.offset.weight, std=0.1)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    found = jacrev(partial(functional_call, layer, dict(layer.named_parameters())))((x,))
    expected = torch.autograd.functional.jacobian(layer, x)
    torch.testing.assert_close(found[0], expected)


def test_a_detector_has_the_gradients_of_backward() -> None:
    torch.manual_seed(0)
    backbone = ResNet(18, deform=DeformableStages(stages=(5,)))
    model = assemble(backbone=backbone, neck=FPN, head=FCOSHead, num_classes=3)
    batch = random_batch(num_classes=3, image_size=(64, 64), batch_size=2, count=3)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def loss(given: dict[str, Tensor]) -> Tensor:
        return sum(functional_call(losses, {f"model.{k}": v for k, v in given.items()}, (batch,)).values())

    losses = Losses(model)
    found = grad(loss)({name: p.detach() for name, p in parameters.items()})
    expected = torch.autograd.grad(loss(parameters), list(parameters.values()))
    torch.testing.assert_close(list(found.values()), list(expected), rtol=1e-3, atol=1e-5)


class Losses(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: object) -> dict[str, Tensor]:
        return self.model.loss(batch)


@pytest.mark.parametrize("pool", [pooled, aligned], ids=lambda f: f.__name__)
def test_samples_that_cannot_be_counted_are_refused(pool: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyramid_deform_roi_pool", "pyramid_roi_align"):
        monkeypatch.setitem(globals(), name, partial(globals()[name], sampling_ratio=0))
    with pytest.raises(RuntimeError, match="Give it a sampling_ratio above 0"):
        grad(lambda x: pool(x, *problem()[1:]).sum())(problem()[0])


def test_an_empty_batch_has_gradients() -> None:
    x, offset, weight = problem(images=0)
    assert grad(lambda x: convolved(x, offset, weight).sum())(x).shape == x.shape


def test_torchvisions_operator_is_asked_for_no_values_where_there_are_none() -> None:
    x, offset, weight = problem(images=2)
    run = partial(deform_conv2d, weight=weight, padding=1, backend="torchvision")
    found = vmap(lambda x, offset: run(x[None], offset[None, :18]))(x, offset)
    torch.testing.assert_close(found[:, 0], run(x, offset[:, :18]))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        shape = run(*(mode.from_tensor(t) for t in (x, offset[:, :18]))).shape
    assert shape == found[:, 0].shape
