"""Modules built on the operations: deformable convolution, pooling of regions, norms."""

from detector.layers.conv import Conv3x3
from detector.layers.deform import DeformableStages, DeformConv2d, Modulation, replace_backends
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.layers.deformable import Deformable, replaced_convolutions, warn_of_unused
from detector.layers.linear import Linear
from detector.layers.norms import NormKind, norm_layer
from detector.layers.roi_pooling import DeformRoIPool, RoIAlign
from detector.layers.towers import DeformableConvs, deformable_count, require_deform_conv, require_unset

__all__ = [
    "Conv3x3",
    "DeformConv2d",
    "DeformRoIPool",
    "Deformable",
    "DeformableConvs",
    "DeformableStages",
    "DepthwiseDeformConv2d",
    "Linear",
    "Modulation",
    "NormKind",
    "RoIAlign",
    "deformable_count",
    "norm_layer",
    "replace_backends",
    "replaced_convolutions",
    "require_deform_conv",
    "require_unset",
    "warn_of_unused",
]
