"""Necks, which turn backbone features into a pyramid."""

from detector.lazy import lazy_getattr

_MODULES = {
    "FPN": "detector.necks.fpn",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
