"""The backend `torchvision`: a C++/CUDA operator, the reference on CUDA, recorded by tracing and export."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torchvision.ops import deform_conv2d as operator

from detector.ops.deform_conv.geometry import Geometry, finite_shifts, homes
from detector.ops.recording import is_recorded

# N images, G offset groups, K taps

# It has float16 kernels on CUDA, which compute coordinates in float16, and none for bfloat16.
DTYPES = (torch.float32, torch.float64)


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> Tensor:
    """Compute `detector.ops.deform_conv2d`; the result is contiguous."""
    if x.device.type == "cpu" and not is_recorded():
        offset, mask = _survivable(offset, mask, geometry)
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


def _survivable(
    offset: Float[Tensor, "N _DGK Y X"], mask: Float[Tensor, "N _GK Y X"] | None, geometry: Geometry
) -> tuple[Float[Tensor, "N _DGK Y X"], Float[Tensor, "N _GK Y X"] | None]:
    """Return offset and mask that the CPU kernel can handle.

    As NaN is neither left nor right of a border, the kernel takes it to be inside, and would read memory
    outside x.
    """
    shift = offset.unflatten(1, (geometry.offset_groups, geometry.taps, 2))
    y, x = homes(geometry, *offset.shape[2:], device=offset.device)
    home = torch.stack(torch.broadcast_tensors(y[..., 0], x[..., 0]), dim=-1).permute(2, 3, 0, 1)
    shift, factor = finite_shifts(shift, home, dim=3)
    offset, factor = shift.flatten(1, 3), factor.flatten(1, 2)
    if mask is not None:
        return offset, mask * factor
    # A mask makes the backward pass a tenth slower. Fake tensors have no values to check.
    has_values = not (torch.compiler.is_compiling() or is_in_torch_dispatch_mode())
    return offset, None if has_values and not factor.isnan().any() else factor
