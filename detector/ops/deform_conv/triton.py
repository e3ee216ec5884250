"""The backend `triton`: a kernel writes the columns, cuBLAS multiplies them. For CUDA, in any float dtype.

It is registered with torch as `detector::deform_conv2d`, so that it is one node of compiled and exported
graphs. The columns are recomputed in the backward pass instead of stored.
"""

# N images, M output positions of a part of them, K taps, C input and O output channels, D convolution groups

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from detector.ops.deform_conv.geometry import Geometry

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_COLUMN_BYTES = 1 << 30  # maximum size of the columns of a part, unless it is a single image
_GEOMETRY = "int[] stride, int[] padding, int[] dilation, int groups"


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> Tensor:
    """Compute `detector.ops.deform_conv2d`; the result has the memory format of x.

    offset and mask are float32, or float64 with float64 features.

    Raises:
        ValueError: if the kernels cannot run.
    """
    return _forward(x, offset, weight, bias, mask, *_integers(geometry))


@torch.library.custom_op(
    "detector::deform_conv2d",
    mutates_args=(),
    schema=f"(Tensor x, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, {_GEOMETRY}) -> Tensor",
)
def _forward(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, *integers: Any
) -> Tensor:
    launch, geometry = _launchers(x), _geometry(offset, weight, *integers)
    pixels, kernel = x.permute(0, 2, 3, 1).contiguous(), _to_kernel(weight, geometry)
    y = _new_output(x, offset, weight)
    for part in _parts(pixels, offset, geometry):
        sampling = launch.Sampling.of(pixels[part], offset[part], _of(mask, part), geometry)
        columns, product = launch.sample(pixels[part], sampling), _by_group(y[part], geometry)
        if bias is None:
            torch.bmm(columns, kernel.mT, out=product)
        else:
            torch.baddbmm(bias.reshape(geometry.groups, 1, -1), columns, kernel.mT, out=product)
    return _to_image(y, like=x)


@_forward.register_fake
def _(x: Tensor, offset: Tensor, weight: Tensor, *others: Any) -> Tensor:
    return _to_image(_new_output(x, offset, weight), like=x)


@torch.library.custom_op(
    "detector::deform_conv2d_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor x, Tensor offset, Tensor weight, Tensor? mask, {_GEOMETRY}, "
    "bool[] output_mask) -> Tensor[]",
)
def _backward(
    grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, *others: Any
) -> list[Tensor]:
    """Return the gradients of those of x, offset, weight, bias and mask that are wanted."""
    *integers, output_mask = others
    need_x, need_offset, need_weight, need_bias, need_mask = output_mask
    launch, geometry = _launchers(x), _geometry(offset, weight, *integers)
    pixels, kernel = x.permute(0, 2, 3, 1).contiguous(), _to_kernel(weight, geometry)
    grad = grad.permute(0, 2, 3, 1).contiguous()
    grad_pixels, grad_offset = torch.empty_like(pixels), torch.empty_like(offset)
    grad_mask = None if mask is None else torch.empty_like(mask)
    grad_kernel, of_part = torch.zeros_like(kernel, dtype=offset.dtype), torch.empty_like(kernel)
    for part in _parts(pixels, offset, geometry):
        sampling = launch.Sampling.of(pixels[part], offset[part], _of(mask, part), geometry)
        product = _by_group(grad[part], geometry)
        if need_weight:
            grad_kernel += torch.bmm(product.mT, launch.sample(pixels[part], sampling), out=of_part)
        if need_x or need_offset or need_mask:
            grad_columns = kernel.new_empty(*product.shape[:2], kernel.shape[2])
            torch.bmm(product, kernel, out=grad_columns)
        if need_offset or need_mask:
            into = grad_offset[part], _of(grad_mask, part)
            launch.differentiate(pixels[part], grad_columns, sampling, into=into)
        if need_x:
            grad_pixels[part] = launch.pixel_gradient(pixels[part], grad_columns, sampling)
    gradients = (
        _to_image(grad_pixels, like=x),
        grad_offset,
        _to_weight(grad_kernel, like=weight),
        grad.sum(dim=(0, 1, 2)) if need_bias else None,
        grad_mask,
    )
    return [
        gradient
        for gradient, is_needed in zip(gradients, output_mask, strict=True)
        if is_needed and gradient is not None
    ]


@_backward.register_fake
def _(
    grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, *others: Any
) -> list[Tensor]:
    n, c, h, w = x.shape
    gradients = (
        _to_image(x.new_empty(n, h, w, c), like=x),
        torch.empty_like(offset),
        torch.empty_like(weight),
        weight.new_empty(weight.shape[0]),
        None if mask is None else torch.empty_like(mask),
    )
    return [
        gradient
        for gradient, is_needed in zip(gradients, others[-1], strict=True)
        if is_needed and gradient is not None
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, offset, weight, _, mask, *ctx.integers = inputs
    ctx.save_for_backward(x, offset, weight, mask)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    output_mask = list(ctx.needs_input_grad[:5])
    gradients = iter(_backward(grad, *ctx.saved_tensors, *ctx.integers, output_mask))
    return *(next(gradients) if is_needed else None for is_needed in output_mask), *(
        None for _ in ctx.integers
    )


def _refuse(ctx: Any, *grads: Any) -> NoReturn:
    raise RuntimeError(
        "deform_conv2d: backend triton can be differentiated once, but a second derivative was requested. "
        "No backend has it."
    )


_forward.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse)


def obstacle(device: torch.device) -> str | None:
    """Return why the backend cannot run on tensors of a device, or None if it can."""
    if find_spec("triton") is None:
        return (
            "needs the package triton, which is not installed; torch brings it on Linux with CUDA. Install "
            "it, or choose another backend, such as auto."
        )
    from detector.ops.deform_conv import triton_launch

    if device.type != "cuda" and not triton_launch.INTERPRETED:
        return (
            f"needs tensors on CUDA, but x is on {device}. Move them there, or choose another backend, such "
            "as auto. (TRITON_INTERPRET=1 in the environment runs it anywhere, for tests: slowly.)"
        )
    return None


def _launchers(x: Tensor) -> ModuleType:
    """Return the module of the kernels, which imports triton.

    Raises:
        ValueError: if the backend cannot run on the device of x.
    """
    reason = obstacle(x.device)
    if reason is not None:
        raise ValueError(f"deform_conv2d: backend triton {reason}")
    from detector.ops.deform_conv import triton_launch

    return triton_launch


def _integers(geometry: Geometry) -> tuple[list[int], list[int], list[int], int]:
    """Return the integers of a geometry that the operator takes; the rest follows from the tensors."""
    return list(geometry.stride), list(geometry.padding), list(geometry.dilation), geometry.groups


def _geometry(
    offset: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Geometry:
    kernel = weight.shape[2], weight.shape[3]
    offset_groups = offset.shape[1] // (2 * kernel[0] * kernel[1])
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    return Geometry(kernel, (sh, sw), (ph, pw), (dh, dw), groups, offset_groups)


def _parts(pixels: Float[Tensor, "N H W C"], offset: Tensor, geometry: Geometry) -> Iterator[slice]:
    """Yield slices of images such that the columns of each part have bounded size."""
    out_h, out_w = offset.shape[2:]
    image_bytes = out_h * out_w * geometry.taps * pixels.shape[3] * pixels.itemsize
    size = max(1, _COLUMN_BYTES // image_bytes)
    for start in range(0, len(pixels), size):
        yield slice(start, start + size)


def _of(tensor: Tensor | None, part: slice) -> Tensor | None:
    return None if tensor is None else tensor[part]


def _new_output(x: Tensor, offset: Tensor, weight: Tensor) -> Float[Tensor, "N Y X O"]:
    return x.new_empty(x.shape[0], *offset.shape[2:], weight.shape[0])


def _to_image(y: Float[Tensor, "N H W C"], *, like: Tensor) -> Float[Tensor, "N C H W"]:
    """Return y as an image in the memory format of `like`."""
    y = y.permute(0, 3, 1, 2)
    return y.contiguous() if like.is_contiguous() else y


def _by_group(y: Float[Tensor, "n Y X O"], geometry: Geometry) -> Float[Tensor, "D M o"]:
    """Return a view with one matrix per convolution group."""
    return y.view(-1, geometry.groups, y.shape[3] // geometry.groups).transpose(0, 1)


def _to_kernel(weight: Float[Tensor, "O d kh kw"], geometry: Geometry) -> Float[Tensor, "D o features"]:
    """Return the matrices that multiply columns, one per convolution group."""
    return weight.permute(0, 2, 3, 1).reshape(geometry.groups, len(weight) // geometry.groups, -1)


def _to_weight(kernel: Float[Tensor, "D o features"], *, like: Tensor) -> Float[Tensor, "O d kh kw"]:
    out_channels, channels, height, width = like.shape
    taps_first = kernel.view(out_channels, height, width, channels).permute(0, 3, 1, 2)
    return torch.empty_like(like).copy_(taps_first)
