"""Deformable convolution (Dai et al. 2017; modulated: Zhu et al. 2019): one function, several backends."""

from detector.lazy import lazy_getattr

_MODULES = {
    "Backend": "detector.ops.deform_conv.dispatch",
    "deform_conv2d": "detector.ops.deform_conv.dispatch",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
