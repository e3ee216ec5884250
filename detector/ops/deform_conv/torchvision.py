"""Backend `torchvision`: the C++/CUDA operator, the reference on CUDA and what tracing and export record."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d as operator

from detector.ops.deform_conv.geometry import Geometry


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> Tensor:
    """See `detector.ops.deform_conv2d`. Half precision and autocast compute in float32."""
    device = x.device.type
    result = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    # The operator has no bfloat16 kernels, and in float16 rounds coordinates to a tenth of a pixel.
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(device, enabled=False):
        y = operator(
            x.to(compute),
            offset.to(compute),
            weight.to(compute),
            None if bias is None else bias.to(compute),
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            mask=None if mask is None else mask.to(compute),
        )
    return y.to(result)
