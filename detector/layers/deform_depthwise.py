"""The operators of InternImage (DCNv3, Wang et al. 2023) and DCNv4 (Xiong et al. 2024) as a layer."""

# G offset groups, K = kernel height * width taps

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from detector.layers.checks import check_map
from detector.layers.deformable import Deformable
from detector.layers.norms import LayerNorm2d
from detector.ops.deform_conv.depthwise import chosen_sampling, deform_sampled_sum
from detector.ops.deform_conv.geometry import Geometry, IntOrPair, pair
from detector.ops.deform_conv.statistics import sampling_statistics
from detector.option_types import PositiveInt

_MODULATIONS = {3: "softmax", 4: "unbounded"}  # by version


class DepthwiseDeformConv2d(Deformable):
    """A drop-in for `nn.Conv2d`: a projection, a depth-wise sum of offset samples and another projection.

    It cannot load a convolution's weight. `groups` applies to the projections, so that outputs depend on the
    inputs of their own group, as in a grouped convolution, except for the sampling positions. The offset
    branch, a depth-wise convolution of the same geometry and a linear layer, predicts G * 2K offsets in
    pixels and G * K modulations in the layout of `deform_sampled_sum`. Offsets start at 0.

    `version`: 3 has a norm and GELU in its branch and a softmax over the taps as modulation; 4 has neither.
    Both start as the mean over the taps. (The original of version 4 starts with a modulation of 0, after
    which batch norm and ReLU give no gradient.)

        >>> DepthwiseDeformConv2d(8, 16, 3, stride=2, padding=1, version=4)(torch.randn(1, 8, 9, 9)).shape
        torch.Size([1, 16, 5, 5])
    """

    offset: nn.Sequential

    def __init__(
        self,
        in_channels: PositiveInt,
        out_channels: PositiveInt,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: PositiveInt = 1,
        bias: bool = True,
        *,
        version: Literal[3, 4],
        offset_groups: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if version not in _MODULATIONS:
            raise ValueError(f"DepthwiseDeformConv2d: version must be 3 or 4, got {version}.")
        if offset_groups < 1 or in_channels % offset_groups:
            raise ValueError(
                f"DepthwiseDeformConv2d: offset_groups={offset_groups} must divide {in_channels} input "
                "channels."
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = pair(kernel_size), pair(stride)
        self.padding, self.dilation = pair(padding), pair(dilation)
        self.offset_groups = offset_groups
        self.modulation = _MODULATIONS[version]
        self.input_proj = nn.Conv2d(in_channels, in_channels, 1, groups=groups)
        self.output_proj = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=bias)
        same_places = nn.Conv2d(
            in_channels,
            in_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            groups=in_channels,
        )
        between = [LayerNorm2d(in_channels, eps=1e-6), nn.GELU()] if version == 3 else []
        self.offset = nn.Sequential(same_places, *between, nn.Conv2d(in_channels, 3 * self.mask_taps, 1))
        self.reset_parameters()

    @property
    def mask_taps(self) -> int:
        return self.offset_groups * self.kernel_size[0] * self.kernel_size[1]

    def reset_parameters(self) -> None:
        """Initialize projections as in the originals, offsets to 0, and modulations equal for all taps."""
        for projection in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)
        last = self.offset[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        if self.modulation == "unbounded":
            nn.init.constant_(last.bias[2 * self.mask_taps :], self.offset_groups / self.mask_taps)

    def forward(self, x: Tensor) -> Tensor:
        offset, modulation = self.sampling(x)
        y = deform_sampled_sum(
            self.input_proj(x),
            offset,
            modulation,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return self.output_proj(y)

    def sampling(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the offsets in pixels and the modulations used on x, as in `deform_sampled_sum`."""
        check_map(x, layer="DepthwiseDeformConv2d", in_channels=self.in_channels, geometry=self.geometry)
        return self.decode(self.offset(x))

    def decode(self, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the offsets and modulations from the output of the branch `offset`."""
        offset, modulation = predicted.split([2 * self.mask_taps, self.mask_taps], dim=1)
        if self.modulation == "softmax":
            by_group = modulation.unflatten(1, (self.offset_groups, -1))
            modulation = by_group.softmax(dim=2).flatten(1, 2)
        return offset, modulation

    def decode_by_tap(self, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `decode` does in the layout of `deform_conv2d`: taps row by row, (y, x)."""
        offset, modulation = self.decode(predicted)
        by_row = (self.offset_groups, *reversed(self.kernel_size))  # groups, columns, rows
        offset = offset.unflatten(1, (*by_row, 2)).transpose(2, 3).flip(4).flatten(1, 4)
        return offset, modulation.unflatten(1, by_row).transpose(2, 3).flatten(1, 3)

    def statistics(self, inputs: tuple[Tensor], predicted: Tensor) -> dict[str, Tensor]:
        offset, modulation = self.decode_by_tap(predicted)
        height, width = inputs[0].shape[2:]
        return sampling_statistics(offset, modulation, geometry=self.geometry, input_size=(height, width))

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.kernel_size, self.stride, self.padding, self.dilation, 1, self.offset_groups)

    @property
    def reach_px(self) -> float:
        return self.geometry.reach

    @property
    def summary(self) -> dict[str, str]:
        device, width = self.output_proj.weight.device, self.in_channels // self.offset_groups
        return {
            "channels": f"{self.in_channels} to {self.out_channels}",
            "backend": f"auto: {chosen_sampling(device, channels_per_group=width)}",
            "offset groups": str(self.offset_groups),
            "modulation": self.modulation,
            "kernel": "x".join(map(str, self.kernel_size)),
            "stride": "x".join(map(str, self.stride)),
        }
