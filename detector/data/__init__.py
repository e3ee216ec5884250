"""Data: COCO-format files to batches."""

from .coco import Category, CocoAnnotations, read_coco
from .datamodule import DetectionDataModule
from .dataset import CocoDataset, Sample
from .layouts import SplitPaths
from .transforms import Augmentation, ImageSize
from .warped_shapes import WarpedShapes

__all__ = [
    "Augmentation",
    "Category",
    "CocoAnnotations",
    "CocoDataset",
    "DetectionDataModule",
    "ImageSize",
    "Sample",
    "SplitPaths",
    "WarpedShapes",
    "read_coco",
]
