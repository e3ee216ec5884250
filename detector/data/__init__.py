"""Data: COCO-format files to batches."""

from .categories import Category
from .coco import CocoAnnotations
from .collate import collate
from .datamodule import DetectionDataModule
from .dataset import CocoDataset, Sample
from .images import ImageFileError, read_image
from .layouts import SplitPaths
from .objects import require_objects
from .reader import read_coco
from .transforms import Augmentation, ImageSize, resize
from .warped_shapes import WarpedShapes

__all__ = [
    "Augmentation",
    "Category",
    "CocoAnnotations",
    "CocoDataset",
    "DetectionDataModule",
    "ImageFileError",
    "ImageSize",
    "Sample",
    "SplitPaths",
    "WarpedShapes",
    "collate",
    "read_coco",
    "read_image",
    "require_objects",
    "resize",
]
