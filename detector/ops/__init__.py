"""Pure tensor functions, and the losses of the heads."""

from detector.lazy import lazy_getattr

_MODULES = {
    "BoxLoss": "detector.ops.losses",
    "ClassificationLoss": "detector.ops.losses",
    "DecodedBoxLoss": "detector.ops.losses",
    "EncodedBoxLoss": "detector.ops.losses",
    "Focal": "detector.ops.losses",
    "GIoU": "detector.ops.losses",
    "L1": "detector.ops.losses",
    "SmoothL1": "detector.ops.losses",
    "deform_conv2d": "detector.ops.deform_conv.dispatch",
    "deform_sampled_sum": "detector.ops.deform_conv.depthwise",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
