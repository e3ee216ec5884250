"""Whole detectors."""

from detector.models.detector import Detector, assemble

__all__ = ["Detector", "assemble"]
