"""Where deformable convolutions sample their input."""

# N images, G offset groups, K taps, h, w height and width of the output

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detector.layers.checks import check_map
from detector.layers.deform import DeformConv2d
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.layers.deformable import deformable_layers
from detector.ops.deform_conv.geometry import homes

Convolution = DeformConv2d | DepthwiseDeformConv2d


@dataclass(frozen=True)
class SamplingPoints:
    """The positions that a deformable convolution samples for each pixel of its output, and their weights.

    `xy` are x, y in pixels of the layer's input, whose first pixel has its center at (0, 0); `regular` are
    those of the plain convolution. `weights` are the modulations, 1 for a layer without. The taps of a kernel
    are row by row, in every version. `input_size` is the (height, width) of the input.
    """

    xy: Float[Tensor, "N G K h w 2"]
    regular: Float[Tensor, "K h w 2"]
    weights: Float[Tensor, "N G K h w"]
    input_size: tuple[int, int]

    @property
    def offsets(self) -> Float[Tensor, "N G K h w 2"]:
        return self.xy - self.regular

    @property
    def outside(self) -> Bool[Tensor, "N G K h w"]:
        """Whether each sample is zero, as it lies a pixel or more beyond the border of the input."""
        limits = self.xy.new_tensor([self.input_size[1], self.input_size[0]])
        return ((self.xy <= -1) | (self.xy >= limits)).any(dim=-1)


@torch.no_grad()
def sampling_points(layer: Convolution, x: Float[Tensor, "N C H W"]) -> SamplingPoints:
    """Return where a layer samples x.

    Raises:
        ValueError: x is no batch of maps with the channels of the layer, or smaller than its kernel.

    Examples:
        >>> points = sampling_points(DeformConv2d(3, 8, 3, stride=2, padding=1), torch.randn(1, 3, 8, 8))
        >>> points.xy[0, 0, :, 1, 2].tolist()[:3]  # of the pixel in row 1, column 2: the upper taps
        [[3.0, 1.0], [4.0, 1.0], [5.0, 1.0]]
    """
    check_map(x, layer=type(layer).__name__, in_channels=layer.in_channels, geometry=layer.geometry)
    return _points(layer, x, layer.offset(x))


@contextmanager
def recorded_points(model: nn.Module) -> Iterator[dict[str, SamplingPoints]]:
    """Record where the deformable convolutions of a model sample in the passes within, each in its last one.

    The names are those of papers for backbones, as in `C4.1`, else as in `named_modules()`.

    Examples:
        >>> model = nn.Sequential(nn.ReLU(), DeformConv2d(3, 8, 3))
        >>> with recorded_points(model) as points:
        ...     output = model(torch.randn(2, 3, 8, 8))
        >>> {name: tuple(layer.xy.shape) for name, layer in points.items()}
        {'1': (2, 1, 9, 6, 6, 2)}
    """
    recorded: dict[str, SamplingPoints] = {}

    def record(
        name: str, layer: Convolution, _: nn.Module, inputs: tuple[Any, ...], predicted: Tensor
    ) -> None:
        recorded[name] = _points(layer, inputs[0].detach(), predicted.detach())

    handles = [
        layer.offset.register_forward_hook(partial(record, name, layer))
        for name, layer in deformable_layers(model).items()
        if isinstance(layer, DeformConv2d | DepthwiseDeformConv2d)
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _points(layer: Convolution, x: Tensor, predicted: Tensor) -> SamplingPoints:
    geometry = layer.geometry
    decode = layer.decode if isinstance(layer, DeformConv2d) else layer.decode_by_tap
    offset, mask = decode(predicted)
    offset = offset.float().unflatten(1, (-1, geometry.taps, 2))  # (N, G, K, (y, x), h, w)
    height, width = offset.shape[-2:]
    rows, columns = homes(geometry, height, width, device=x.device)
    of_rows = rows[:, 0, :, 0].mT[:, :, None].expand(-1, -1, width)
    of_columns = columns[..., 0].mT[:, None].expand(-1, height, -1)
    regular = torch.stack([of_columns, of_rows], dim=-1).to(offset)
    weights = offset.new_ones(offset[:, :, :, 0].shape)
    if mask is not None:
        weights = mask.float().unflatten(1, (-1, geometry.taps))
    xy = regular + offset.flip(3).movedim(3, -1)
    return SamplingPoints(xy, regular, weights, (x.shape[2], x.shape[3]))
