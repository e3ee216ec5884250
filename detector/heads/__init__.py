"""Heads: pyramid features to losses and detections."""

from detector.heads.fcos import FCOSHead
from detector.heads.head import Head

__all__ = ["FCOSHead", "Head"]
