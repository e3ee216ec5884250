"""Necks: backbone features to a pyramid."""

from detector.necks.fpn import FPN

__all__ = ["FPN"]
