"""Pure tensor functions."""

from detector.lazy import lazy_getattr

_MODULES = {
    "deform_conv2d": "detector.ops.deform_conv.dispatch",
    "deform_sampled_sum": "detector.ops.deform_conv.depthwise",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
