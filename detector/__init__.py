"""Object detection with deformable convolution: train, evaluate and compare on COCO-format data."""

__version__ = "0.1.0"
