"""Backend `gather`: every tap is a bag of four corner rows, then one matrix product. The default on CPU."""

# N images, P output positions of an image, K taps, G offset groups, C input channels

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detector.ops.deform_conv.geometry import Geometry


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> Tensor:
    """See `detector.ops.deform_conv2d`."""
    device = x.device.type
    result = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(device, enabled=False):
        y = _deform_conv2d(
            x.to(compute),
            offset.to(compute),
            weight.to(compute),
            None if bias is None else bias.to(compute),
            None if mask is None else mask.to(compute),
            geometry,
        )
    return y.to(result)


def _deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: Geometry
) -> Tensor:
    n, c, h, w = x.shape
    g, k, groups = geometry.offset_groups, geometry.taps, geometry.groups
    index, blend = _corners(offset, mask, geometry, h, w)
    rows = x.permute(0, 2, 3, 1).reshape(n * h * w * g, c // g)
    columns = F.embedding_bag(index.flatten(0, -2), rows, per_sample_weights=blend.flatten(0, -2), mode="sum")
    columns = columns.view(-1, k, groups, c // groups)
    kernel = weight.view(groups, -1, c // groups, k)
    y = torch.einsum("pkgc,gock->pgo", columns, kernel).flatten(1)
    if bias is not None:
        y = y + bias
    return y.view(n, *offset.shape[2:], weight.shape[0]).permute(0, 3, 1, 2)


def _corners(offset: Tensor, mask: Tensor | None, geometry: Geometry, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Row numbers and weights of the four corners of every tap, both (N, P, K, G, 4)."""
    n, _, oh, ow = offset.shape
    g, k = geometry.offset_groups, geometry.taps
    shift = offset.view(n, g, k, 2, oh * ow).permute(3, 0, 4, 2, 1)  # (2, N, P, K, G)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = geometry.kernel, geometry.stride, geometry.padding, geometry.dilation
    line = torch.arange(oh, dtype=shift.dtype)[:, None] * sh - ph + torch.arange(kh)[None] * dh
    column = torch.arange(ow, dtype=shift.dtype)[:, None] * sw - pw + torch.arange(kw)[None] * dw
    home_y = line[:, None, :, None].expand(oh, ow, kh, kw).reshape(oh * ow, k, 1)
    home_x = column[None, :, None, :].expand(oh, ow, kh, kw).reshape(oh * ow, k, 1)
    y, x = (shift[0] + home_y).clamp(-1, h), (shift[1] + home_x).clamp(-1, w)
    top, left = y.detach().floor(), x.detach().floor()
    fy, fx = y - top, x - left
    i, j = top.long(), left.long()
    image = torch.arange(n)[:, None, None, None] * (h * w)
    group = torch.arange(g)
    index, blend = [], []
    for di, wy in ((0, 1 - fy), (1, fy)):
        for dj, wx in ((0, 1 - fx), (1, fx)):
            inside = (i + di >= 0) & (i + di < h) & (j + dj >= 0) & (j + dj < w)
            row = image + (i + di).clamp(0, h - 1) * w + (j + dj).clamp(0, w - 1)
            index.append(row * g + group)
            blend.append(wy * wx * inside)
    blend = torch.stack(blend, -1)
    if mask is not None:
        blend = blend * mask.view(n, g, k, oh * ow).permute(0, 3, 2, 1)[..., None]
    return torch.stack(index, -1), blend
