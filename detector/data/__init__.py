"""Data: COCO-format files to batches."""

from .categories import Category
from .coco import CocoAnnotations
from .datamodule import DetectionDataModule
from .dataset import CocoDataset, Sample
from .layouts import SplitPaths
from .reader import read_coco
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
