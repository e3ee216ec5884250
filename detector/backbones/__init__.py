"""Backbones: images to feature maps."""

from detector.backbones.resnet import ResNet

__all__ = ["ResNet"]
