"""Matrix products on a CPU, each computed by the faster of torch's libraries, MKL and oneDNN.

`torch.mm` and `torch.bmm` use MKL, which has AVX-512 kernels for Intel's processors only. A 1x1 convolution
over rows as pixels is the same product with oneDNN, which detects the features of the processor.
"""

# m rows of f features (f / D in each of D groups), o outputs; g times P products

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from detector.environment import has_intel_cpu
from detector.ops.recording import is_eager_on_cpu

Library = Literal["mkl", "onednn"]

_MOST_FEATURES = 4608  # per gradient of a kernel: with more, oneDNN takes twice as long
_COPIED_FEATURES = 2304  # of regions at once: a part's copy and its gradient are what is needed beside them
_FEWEST_PRODUCTS = 10_000_000  # multiplications, below which a separate call costs more than it saves


def faster_library() -> Library | None:
    """Return the faster library on this processor, or None if each function keeps its default.

    On an Intel Xeon, MKL gains a fifth, except for `grouped_linear`. On an AMD EPYC with AVX-512, oneDNN is
    twice as fast for all products; with only AVX2, MKL is at least as fast for the products it computes here.
    """
    if has_intel_cpu():
        return "mkl" if torch.backends.mkl.is_available() else None
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "onednn" if has_avx512 and torch.backends.mkldnn.is_available() else None


_FASTER = faster_library()


def linear(
    rows: Float[Tensor, "*m f"], weight: Float[Tensor, "o f"], bias: Float[Tensor, "o"] | None
) -> Float[Tensor, "*m o"]:
    """Compute `F.linear(rows, weight, bias)`, with oneDNN if that is faster."""
    if _linear_pays(rows, weight):
        return _Linear.apply(rows.contiguous(), weight, bias)
    return F.linear(rows, weight, bias)


def _linear_pays(rows: Tensor, weight: Tensor) -> bool:
    if rows.dim() != 2 or rows.shape[1] != weight.shape[1] or rows.dtype != weight.dtype:
        return False  # torch computes it or raises the error
    return is_eager_on_cpu(rows) and _many_pay(rows, weight)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return grouped_linear(rows, weight, bias).clone()  # not a view, which cannot be modified in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        need_rows, need_weight, need_bias = ctx.needs_input_grad
        grad_bias = grad.sum(0) if need_bias else None
        if torch.is_grad_enabled():  # a second derivative needs torch's operators
            return grad @ weight, grad.mT @ rows, grad_bias
        grad = grad.contiguous()
        return (
            _convolution_gradients(grad, rows, weight, of_kernel=False) if need_rows else None,
            _kernel_gradient(grad, rows) if need_weight else None,
            grad_bias,
        )


def regions_linear(
    regions: Float[Tensor, "R C S S"], weight: Float[Tensor, "o _f"], bias: Float[Tensor, "o"]
) -> Float[Tensor, "R o"]:
    """Compute `F.linear(regions.flatten(1), weight, bias)` for regions that are channels-last.

    The weight takes their order, as it is smaller than they are. On a CPU it does so where it is needed only,
    and the regions are freed before their gradient is computed, which is as large.
    """
    cells = regions.shape[2] * regions.shape[3]
    rows = regions.permute(0, 2, 3, 1).flatten(1)
    if is_eager_on_cpu(rows) and rows.dtype == weight.dtype:
        return _RegionsLinear.apply(rows, weight, bias, cells)
    return linear(rows, _by_cell(weight, cells).flatten(1), bias)


class _RegionsLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, cells: int) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.cells = cells
        return linear(rows, _by_cell(weight, cells).flatten(1), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        need_rows, need_weight, need_bias, _ = ctx.needs_input_grad
        kernel, grad_rows, grad_weight = _by_cell(weight, ctx.cells), None, None
        grad_bias = grad.sum(0) if need_bias else None
        if torch.is_grad_enabled():  # a second derivative needs torch's operators
            by_cell = (grad.mT @ rows).unflatten(1, (ctx.cells, -1))
            return grad @ kernel.flatten(1), by_cell.mT.flatten(1), grad_bias, None
        grad, shape = grad.contiguous(), rows.shape
        parts = [*torch.arange(ctx.cells).split(max(1, _COPIED_FEATURES // kernel.shape[2]))]
        if need_weight:
            grad_weight, by_cell = torch.empty_like(weight), rows.unflatten(1, (ctx.cells, -1))
            for part in parts:
                gradient = _kernel_product(grad, by_cell[:, part].flatten(1))
                _by_cell(grad_weight, ctx.cells)[:, part] = gradient.unflatten(1, (len(part), -1))
            del by_cell
        del rows
        ctx.maybe_clear_saved_tensors()  # not if the graph is kept
        if need_rows:
            grad_rows = grad.new_empty(shape)
            for part, of_part in zip(
                parts, grad_rows.split([len(p) * kernel.shape[2] for p in parts], 1), strict=True
            ):
                of_part.copy_(_rows_product(grad, kernel[:, part].flatten(1)))
        return grad_rows, grad_weight, grad_bias, None


def _by_cell(weight: Float[Tensor, "o _f"], cells: int) -> Float[Tensor, "o cells C"]:
    """Return a view of the weight of regions (C, S, S) in the order of channels-last ones."""
    return weight.unflatten(1, (-1, cells)).mT


def _kernel_product(grad: Float[Tensor, "m o"], rows: Float[Tensor, "m f"]) -> Float[Tensor, "o f"]:
    kernel = grad.new_empty(grad.shape[1], rows.shape[1])  # only its shape matters
    if not _many_pay(rows, kernel):
        return torch.mm(grad.mT, rows)
    return _convolution_gradients(grad, rows, kernel, of_kernel=True)


def _rows_product(grad: Float[Tensor, "m o"], kernel: Float[Tensor, "o f"]) -> Float[Tensor, "m f"]:
    if not _many_pay(grad, kernel.mT):
        return torch.mm(grad, kernel)
    rows = grad.new_empty(len(grad), kernel.shape[1])  # only its shape matters
    return _convolution_gradients(grad, rows, kernel, of_kernel=False)


def grouped_linear(
    rows: Float[Tensor, "m f"], kernel: Float[Tensor, "o _f"], bias: Tensor | None = None, *, groups: int = 1
) -> Float[Tensor, "m o"]:
    """Compute `F.linear(rows, kernel, bias)`; with groups, a kernel row multiplies its group's features."""
    return _to_rows(torch.conv2d(_to_pixels(rows), kernel[..., None, None], bias, groups=groups))


def grouped_linear_input_grad(
    grad: Float[Tensor, "m o"], kernel: Float[Tensor, "f _o"], *, groups: int
) -> Float[Tensor, "m f"]:
    """Return the gradient of `rows` from that of the product; `kernel` is transposed, group by group."""
    if groups == 1 and _FASTER == "mkl":
        return torch.mm(grad, kernel.mT)
    return grouped_linear(grad, kernel, groups=groups)


def add_grouped_linear_weight_grad(
    grad: Float[Tensor, "m o"], rows: Float[Tensor, "m f"], *, into: Float[Tensor, "D _o _f"]
) -> None:
    """Add the gradient of the kernel from that of the product, group by group."""
    if len(into) == 1 and _onednn_pays(grad):
        into[0] += _kernel_gradient(grad, rows)
    else:
        into.baddbmm_(_by_group(grad, len(into)).mT, _by_group(rows, len(into)))


def batched_linear(
    rows: Float[Tensor, "g P m f"], kernels: Float[Tensor, "g P o f"]
) -> list[list[Float[Tensor, "m o"]]]:
    """Return `rows @ kernels.mT` as g lists of P products."""
    if _many_pay(rows, kernels):
        return [
            [grouped_linear(*pair) for pair in zip(*group, strict=True)]
            for group in zip(rows, kernels, strict=True)
        ]
    products = torch.bmm(rows.flatten(0, 1), kernels.flatten(0, 1).mT)
    return [[*group] for group in products.unflatten(0, rows.shape[:2])]


def add_batched_linear_weight_grads(
    grads: Float[Tensor, "g P m o"], rows: Float[Tensor, "g P m f"], *, into: Float[Tensor, "g P o f"]
) -> None:
    """Add the gradients of the kernels of `batched_linear` from those of the products."""
    gradients, grads, rows = (x.flatten(0, 1) for x in (into, grads, rows))
    if not _many_pay(rows, gradients):
        gradients.baddbmm_(grads.mT, rows)
        return
    for gradient, *pair in zip(gradients, grads, rows, strict=True):
        gradient += _kernel_gradient(*pair)


def _onednn_pays(rows: Tensor) -> bool:
    return _FASTER == "onednn" and rows.dtype == torch.float32


def _many_pay(rows: Float[Tensor, "*P m f"], kernels: Float[Tensor, "*P o f"]) -> bool:
    return _onednn_pays(rows) and rows.shape[-2] * kernels.shape[-2:].numel() >= _FEWEST_PRODUCTS


def _kernel_gradient(grad: Float[Tensor, "m o"], rows: Float[Tensor, "m f"]) -> Float[Tensor, "o f"]:
    gradient = grad.new_empty(grad.shape[1], rows.shape[1])
    for part, part_rows in zip(gradient.split(_MOST_FEATURES, 1), rows.split(_MOST_FEATURES, 1), strict=True):
        # The gradient stands in for the kernel, of which only the shape matters
        part.copy_(_convolution_gradients(grad, part_rows.contiguous(), part, of_kernel=True))
    return gradient


def _convolution_gradients(
    grad: Float[Tensor, "m o"], rows: Float[Tensor, "m f"], kernel: Float[Tensor, "o f"], *, of_kernel: bool
) -> Float[Tensor, "_m f"]:
    """Return the gradient of `grouped_linear` in the kernel or in the rows."""
    pixels, output_mask = (_to_pixels(grad), _to_pixels(rows)), (not of_kernel, of_kernel, False)
    gradients = torch.ops.aten.convolution_backward(
        *pixels, kernel[..., None, None], None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, output_mask
    )
    return gradients[1].flatten(1) if of_kernel else _to_rows(gradients[0])


def _by_group(rows: Float[Tensor, "m features"], groups: int) -> Float[Tensor, "D m _f"]:
    """Return a view with one matrix per group."""
    return rows.unflatten(1, (groups, -1)).transpose(0, 1)


def _to_pixels(rows: Float[Tensor, "m f"]) -> Float[Tensor, "1 f h w"]:
    """Return a view of the rows as pixels of one channels-last image."""
    # oneDNN is fastest on a column, but slower if its length has few divisors
    line = 1 if len(rows) % 16 == 0 else len(rows)
    return rows.view(1, len(rows) // line, line, -1).permute(0, 3, 1, 2)


def _to_rows(pixels: Float[Tensor, "1 f h w"]) -> Float[Tensor, "m f"]:
    return pixels.permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # with one channel, it may not be contiguous
