"""The data pipeline, from COCO-format files to batches."""

from detector.lazy import lazy_getattr

_MODULES = {
    "Augmentation": "detector.data.transforms",
    "CocoAnnotations": "detector.coco.annotations",
    "CocoDataset": "detector.data.dataset",
    "DetectionDataModule": "detector.data.datamodule",
    "ImageSize": "detector.data.transforms",
    "ReadOptions": "detector.coco.images",
    "Sample": "detector.data.dataset",
    "SplitPaths": "detector.coco.layouts",
    "WarpedShapes": "detector.data.warped_shapes.source",
    "read_coco": "detector.coco.reader",
    "read_image": "detector.coco.images",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
