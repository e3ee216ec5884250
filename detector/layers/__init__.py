"""Modules built on the operations: deformable convolution, norms."""

from detector.layers.conv import Conv3x3
from detector.layers.deform import DeformableStages, DeformConv2d, Modulation
from detector.layers.norms import NormKind, norm_layer
from detector.layers.towers import DeformableConvs, deformable_count

__all__ = [
    "Conv3x3",
    "DeformConv2d",
    "DeformableConvs",
    "DeformableStages",
    "Modulation",
    "NormKind",
    "deformable_count",
    "norm_layer",
]
