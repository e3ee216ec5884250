"""Pooling of region features for a head: RoIAlign and deformable RoI pooling."""

# R regions, L levels, C channels, S output size

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from detector.layers.checks import require_choice
from detector.layers.deform import Modulation, modulation_mask
from detector.layers.deformable import Deformable
from detector.layers.linear import Linear
from detector.ops.deform_roi_pool import pyramid_deform_roi_pool, roi_sampling_statistics
from detector.ops.recording import is_recorded
from detector.ops.roi_align import pyramid_level, pyramid_roi_align
from detector.option_types import NonNegativeInt, PositiveInt
from detector.structures import FeatureSpec


class RoIAlign(nn.Module):
    """A module that pools with `pyramid_roi_align`."""

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        *,
        output_size: PositiveInt,
        sampling_ratio: NonNegativeInt = 2,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.strides_px = [f.stride_px for f in features]
        self.output_size, self.sampling_ratio, self.aligned = output_size, sampling_ratio, aligned

    def forward(
        self, features: Sequence[Tensor], boxes: Float[Tensor, "R 4"], image: Int64[Tensor, "R"]
    ) -> Float[Tensor, "R C S S"]:
        return pyramid_roi_align(
            features,
            self.strides_px,
            boxes,
            image,
            output_size=self.output_size,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )


class DeformRoIPool(Deformable):
    """A pooling with two passes: the regular bins predict their offsets and, with modulation, their weights.

    Each level has its own offset branch of linear layers with `width` hidden units (MMDetection's
    `DeformRoIPoolPack` and, with modulation, `ModulatedDeformRoIPoolPack`). The last layer is zero, so that
    pooling starts as RoIAlign, or at half its response for the modulation "sigmoid", as published.
    """

    offset: _Branches
    modulation: Modulation

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        *,
        output_size: PositiveInt,
        sampling_ratio: NonNegativeInt = 2,
        aligned: bool = False,
        modulation: Modulation = "doubled_sigmoid",
        width: PositiveInt = 1024,
    ) -> None:
        super().__init__()
        require_choice("pooling.modulation", modulation, get_args(Modulation))
        self.regular = RoIAlign(
            features, output_size=output_size, sampling_ratio=sampling_ratio, aligned=aligned
        )
        self.channels, self.modulation = features[0].channels, modulation
        self.offset = _Branches(
            _Branch(self.channels, output_size, width, modulated=modulation != "none") for _ in features
        )

    def forward(
        self, features: Sequence[Tensor], boxes: Float[Tensor, "R 4"], image: Int64[Tensor, "R"]
    ) -> Float[Tensor, "R C S S"]:
        offset, mask = self.sampling(features, boxes, image)
        return pyramid_deform_roi_pool(
            features,
            self.regular.strides_px,
            boxes,
            image,
            offset,
            mask,
            sampling_ratio=self.regular.sampling_ratio,
            aligned=self.regular.aligned,
        )

    def sampling(
        self, features: Sequence[Tensor], boxes: Float[Tensor, "R 4"], image: Int64[Tensor, "R"]
    ) -> tuple[Float[Tensor, "R 2 S S"], Float[Tensor, "R S S"] | None]:
        """Return the offsets in tenths of the region's size, x before y, and the mask that the layer uses."""
        self._check(features)
        pooled = self.regular(features, boxes, image)
        level = pyramid_level(boxes, num_levels=len(features), finest_stride_px=self.regular.strides_px[0])
        return self.decode(self.offset(pooled, level))

    def _check(self, features: Sequence[Tensor]) -> None:
        """Raise ValueError if the features do not fit; otherwise the error would describe a branch."""
        if is_recorded():
            return
        levels, shapes = len(self.offset), [tuple(x.shape) for x in features]
        if len(shapes) != levels or any(len(s) != 4 or s[1] != self.channels for s in shapes):
            raise ValueError(
                f"DeformRoIPool: expected features of {levels} levels, each of shape "
                f"(B, {self.channels}, H, W), got {shapes}."
            )

    def decode(
        self, predicted: Float[Tensor, "R _D S S"]
    ) -> tuple[Float[Tensor, "R 2 S S"], Float[Tensor, "R S S"] | None]:
        """Return the offsets and mask from the output of the branches `offset`."""
        if self.modulation == "none":
            return predicted, None
        return predicted[:, :2], modulation_mask(predicted[:, 2], self.modulation)

    def statistics(self, inputs: tuple[Any, ...], predicted: Tensor) -> dict[str, Tensor]:
        features, boxes, _ = inputs
        strides_px, aligned = self.regular.strides_px, self.regular.aligned
        return roi_sampling_statistics(features, strides_px, boxes, *self.decode(predicted), aligned=aligned)

    @property
    def reach_px(self) -> float:
        """The reach for a region of its level's canonical size, which is 224 pixels at a stride of 16."""
        return 224 / 16 / 2

    @property
    def summary(self) -> dict[str, str]:
        size = self.regular.output_size
        return {
            "channels": str(self.channels),
            "backend": "gather",
            "offset groups": "1",
            "modulation": self.modulation,
            "kernel": f"{size}x{size}",
            "stride": "",
        }


class _Branches(nn.ModuleList):
    """The offset branches, one per level."""

    def forward(
        self, pooled: Float[Tensor, "R C S S"], level: Int64[Tensor, "R"]
    ) -> Float[Tensor, "R _D S S"]:
        places = [torch.where(level == i)[0] for i in range(len(self))]
        # Branches of levels without regions run too, so that all parameters get gradients on all processes.
        parts = [branch(pooled.index_select(0, place)) for branch, place in zip(self, places, strict=True)]
        predicted = parts[0].new_zeros(level.shape[0], parts[0].shape[1])
        for place, part in zip(places, parts, strict=True):
            predicted = predicted.index_copy(0, place, part)
        return predicted.unflatten(1, (-1, *pooled.shape[2:]))


class _Branch(nn.Module):
    """The branch of one level: offsets, then mask logits, each plane bin by bin."""

    def __init__(self, channels: int, size: int, width: int, *, modulated: bool) -> None:
        super().__init__()
        inputs, bins = channels * size**2, size**2
        self.shift = _linear_layers(inputs, width, width, 2 * bins)
        self.mask = _linear_layers(inputs, width, bins) if modulated else None

    def forward(self, pooled: Float[Tensor, "R C S S"]) -> Float[Tensor, "R _N"]:
        flat = pooled.flatten(1)
        shift = self.shift(flat)
        return shift if self.mask is None else torch.cat([shift, self.mask(flat)], dim=1)


def _linear_layers(*widths: int) -> nn.Sequential:
    """Return linear layers with ReLU between them, the last one zero."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [Linear(before, after), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers[:-1])
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network
