"""Modules built on the operations: deformable convolution, RoI pooling, norms."""

from detector.lazy import lazy_getattr

_MODULES = {
    "Conv3x3": "detector.layers.conv",
    "DeformConv2d": "detector.layers.deform",
    "DeformRoIPool": "detector.layers.roi_pooling",
    "Deformable": "detector.layers.deformable",
    "DeformableConvs": "detector.layers.towers",
    "DeformableStages": "detector.layers.deform",
    "DepthwiseDeformConv2d": "detector.layers.deform_depthwise",
    "Linear": "detector.layers.linear",
    "Modulation": "detector.layers.deform",
    "NormKind": "detector.layers.norms",
    "RoIAlign": "detector.layers.roi_pooling",
    "SamplingPoints": "detector.layers.samples",
    "norm_layer": "detector.layers.norms",
    "offset_parameters": "detector.layers.deformable",
    "recorded_points": "detector.layers.samples",
    "replace_backends": "detector.layers.deform",
    "restore_convolutions": "detector.layers.swap",
    "sampling_points": "detector.layers.samples",
    "swap_convolutions": "detector.layers.swap",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
