"""Complete detectors."""

from detector.lazy import lazy_getattr

_MODULES = {
    "Detector": "detector.models.detector",
    "build_detector": "detector.models.detector",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
