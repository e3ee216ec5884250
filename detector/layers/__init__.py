"""Modules built on the operations: deformable convolution, norms."""

from detector.layers.conv import Conv3x3
from detector.layers.deform import DeformableStages, DeformConv2d, Modulation
from detector.layers.norms import NormKind, norm_layer

__all__ = ["Conv3x3", "DeformConv2d", "DeformableStages", "Modulation", "NormKind", "norm_layer"]
