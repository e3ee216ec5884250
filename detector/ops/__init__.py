"""Pure tensor functions."""

from detector.ops.deform_conv import deform_conv2d
from detector.ops.deform_conv.depthwise import deform_sampled_sum

__all__ = ["deform_conv2d", "deform_sampled_sum"]
