"""Backbones, which turn images into feature maps."""

from detector.lazy import lazy_getattr

_MODULES = {
    "ResNet": "detector.backbones.resnet",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
