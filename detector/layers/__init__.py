"""Modules built on the operations: deformable convolution, norms."""

from detector.layers.deform import DeformableStages, DeformConv2d, Modulation
from detector.layers.norms import NormKind, norm_layer

__all__ = ["DeformConv2d", "DeformableStages", "Modulation", "NormKind", "norm_layer"]
