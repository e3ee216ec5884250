"""Object detection with deformable convolution: train, evaluate and compare on COCO-format data."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.inference import Detector

__version__ = "0.1.0"

__all__ = ["Detector"]


def __getattr__(name: str) -> object:
    """`detector.Detector`, imported when asked for: the command line must answer before torch is there."""
    if name == "Detector":
        from detector.inference import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
