"""Pure tensor functions."""

from detector.ops.deform_conv import deform_conv2d

__all__ = ["deform_conv2d"]
