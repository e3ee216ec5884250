"""Backend `torchvision`: the C++/CUDA operator, the reference on CUDA and what tracing and export record."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d as operator

from detector.ops.deform_conv.geometry import Geometry

# It has float16 kernels on CUDA, which compute coordinates in float16, and none for bfloat16.
DTYPES = (torch.float32, torch.float64)


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> Tensor:
    """See `detector.ops.deform_conv2d`. The result is contiguous."""
    return operator(
        x,
        offset,
        weight,
        bias,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        mask=mask,
    )
