"""Deformable convolution (Dai et al. 2017; modulated: Zhu et al. 2019): one function, several backends."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor

from detector.ops.autocast import autocasts, without_autocast
from detector.ops.deform_conv import gather
from detector.ops.deform_conv.geometry import Geometry, IntOrPair, check_shapes, check_tensors, pair
from detector.ops.differentiation import refuse_forward_mode
from detector.ops.recording import is_recorded

__all__ = ["Backend", "chosen_backend", "deform_conv2d", "runs_on"]

Backend = Literal["auto", "gather", "torchvision", "triton"]


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    backend: Backend = "auto",
) -> Tensor:
    """Convolve x, where tap k of output p samples it at p * stride - padding + k * dilation + offset.

    Layout and semantics are torchvision's. x (N, C, H, W); weight (O, C / groups, kh, kw); bias (O).
    offset (N, 2 * G * K, H', W') in pixels of x, for G offset groups, K = kh * kw taps in row-major order and
    channel `group * 2K + 2k + {0: dy, 1: dx}`. mask (N, G * K, H', W') multiplies each sample.
    An offset group moves C / G consecutive channels; G is inferred from the shape of offset.
    A sample with h <= -1 or h >= H is 0, likewise in w; each corner outside x contributes 0.
    Returns (N, O, H', W'), H' and W' as for a convolution.

    `backend`: "gather" (for CPU), "torchvision", "triton" (for CUDA), or "auto": gather on CPU, torchvision
    elsewhere. While the call is traced or exported, torchvision replaces gather. Under autocast the result
    has its dtype. Coordinates and sums are at least float32. With half-precision features triton reads them
    as they are, while the others compute in float32 and round the result. The result is differentiable once.

    Raises:
        ValueError: if arguments do not fit together, or the backend cannot run.

    Examples:
        >>> x, offset = torch.randn(1, 3, 8, 8), torch.zeros(1, 18, 8, 8)
        >>> deform_conv2d(x, offset, torch.randn(16, 3, 3, 3), padding=1).shape
        torch.Size([1, 16, 8, 8])
    """
    if backend not in get_args(Backend):
        raise ValueError(f"deform_conv2d: backend must be one of {get_args(Backend)}, got {backend!r}.")
    recorded = is_recorded()
    if not recorded:
        check_tensors(x, offset, weight, bias, mask)
        refuse_forward_mode("deform_conv2d", x, offset, weight, bias, mask)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))  # torch.jit.trace gives shapes as tensors
    offset_groups = int(offset.shape[1]) // (2 * kernel[0] * kernel[1])
    geometry = Geometry(kernel, pair(stride), pair(padding), pair(dilation), groups, offset_groups)
    if not recorded:
        check_shapes(x, offset, weight, bias, mask, geometry)
    chosen = _module(chosen_backend(backend, x.device))
    return _in_working_precision(chosen, x, offset, weight, bias, mask, geometry)


def chosen_backend(backend: Backend, device: torch.device) -> Backend:
    """Return the backend that computes on tensors of this device now, with "auto" resolved.

    While a graph is recorded, torchvision replaces gather, whose number of chunks no graph can express.
    """
    if backend in ("auto", "gather") and is_recorded():
        return "torchvision"
    if backend != "auto":
        return backend
    return "gather" if device.type == "cpu" else "torchvision"


def runs_on(backend: Backend, device: torch.device) -> bool:
    """Return whether the backend can compute on tensors of this device."""
    return backend != "triton" or _module(backend).obstacle(device) is None


def _module(backend: Backend) -> ModuleType:
    """Import a backend, with a function `deform_conv2d` and the DTYPES of x, weight and bias it computes in.

    Other dtypes are passed as float32; offset and mask as float32, or as float64 with float64 features.
    """
    if backend == "gather":
        return gather
    if backend == "triton":  # these are loaded only when used, which saves the import of their packages
        from detector.ops.deform_conv import triton

        return triton
    from detector.ops.deform_conv import torchvision

    return torchvision


def _in_working_precision(
    backend: ModuleType,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """Compute in a dtype that the backend supports, and return that of a convolution, autocast included.

    Coordinates are never half precision: float16 rounds them to a tenth of a pixel.
    """
    device, autocast = x.device.type, autocasts(x)
    result = torch.get_autocast_dtype(device) if autocast and x.dtype != torch.float64 else x.dtype
    features = result if result in backend.DTYPES else torch.float32
    precise = torch.float64 if features == torch.float64 else torch.float32
    with without_autocast(x.device) if autocast else nullcontext():
        x, weight, offset = x.to(features), weight.to(features), offset.to(precise)
        bias = None if bias is None else bias.to(features)
        mask = None if mask is None else mask.to(precise)
        return backend.deform_conv2d(x, offset, weight, bias, mask, geometry).to(result)
