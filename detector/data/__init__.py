"""Data: COCO-format files to batches."""

from .categories import Category
from .coco import CocoAnnotations
from .collate import collate
from .datamodule import DetectionDataModule
from .dataset import CocoDataset, Sample
from .image_headers import is_surely_image, readable_endings
from .image_values import ImageRange, ValueRange, range_note, require_ascending
from .images import ImageFileError, ImageNotes, ReadOptions, read_image, read_image_with_notes
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
    "ImageNotes",
    "ImageRange",
    "ImageSize",
    "ReadOptions",
    "Sample",
    "SplitPaths",
    "ValueRange",
    "WarpedShapes",
    "collate",
    "is_surely_image",
    "range_note",
    "read_coco",
    "read_image",
    "read_image_with_notes",
    "readable_endings",
    "require_ascending",
    "require_objects",
    "resize",
]
