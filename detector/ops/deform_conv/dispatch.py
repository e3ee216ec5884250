"""Deformable convolution (Dai et al. 2017; modulated: Zhu et al. 2019): one function, several backends."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor

from detector.ops.autocast import autocasts, without_autocast
from detector.ops.deform_conv import gather, torchvision
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
    """Convolution whose tap k at output p samples x at p * stride - padding + k * dilation + offset.

    Layout and semantics are torchvision's. x (N, C, H, W); weight (O, C / groups, kh, kw); bias (O).
    offset (N, 2 * G * K, H', W') in pixels of x, for G offset groups, K = kh * kw taps in row-major order and
    channel `group * 2K + 2k + {0: dy, 1: dx}`. mask (N, G * K, H', W') multiplies each sample.
    An offset group moves C / G neighbouring channels; G is read off offset's shape.
    A sample with h <= -1 or h >= H is 0, likewise in w; each corner outside x contributes 0.
    Returns (N, O, H', W'), H' and W' as for a convolution.

    `backend`: "gather" (made for CPU), "torchvision", "triton" (made for CUDA), or "auto": gather on CPU,
    torchvision elsewhere. Whenever the call is traced or exported, torchvision stands in for gather. Under
    autocast the result has its dtype. Coordinates are at least float32, and so are all sums; of half
    precision triton keeps the features so, the others compute in float32 and round the result. Raises
    ValueError on arguments that do not fit together and where the backend cannot run. Differentiable once.

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
    """The one that computes on tensors of this device, now: what "auto" is, and while a graph is recorded
    torchvision for gather, whose chunks no graph can count. Any other backend is itself."""
    if backend in ("auto", "gather") and is_recorded():
        return "torchvision"
    if backend != "auto":
        return backend
    return "gather" if device.type == "cpu" else "torchvision"


def runs_on(backend: Backend, device: torch.device) -> bool:
    """Whether it can compute on tensors of this device."""
    return backend != "triton" or _module(backend).obstacle(device) is None


def _module(backend: Backend) -> ModuleType:
    """Import a backend: a function `deform_conv2d`, and the DTYPES of x, weight and bias that it computes in.

    Others it gets as float32; offset and mask as float32, or float64 with features in float64.
    """
    if backend == "triton":  # not loaded where another one computes
        from detector.ops.deform_conv import triton

        return triton
    return gather if backend == "gather" else torchvision


def _in_working_precision(
    backend: ModuleType,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """Computes in what the backend can, and returns the dtype that a convolution would, autocast included.

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
