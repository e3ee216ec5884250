"""Object detection with deformable convolution: train, evaluate and compare on COCO-format data."""

from typing import TYPE_CHECKING

from detector.version import __version__

if TYPE_CHECKING:
    from detector.predictor import Predictor

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> object:
    """`detector.Predictor`, imported when asked for: the command line must answer before torch is there."""
    if name == "Detector":
        import warnings

        warnings.warn(
            "detector.Detector is called detector.Predictor; the old name goes with the next version.",
            FutureWarning,
            stacklevel=2,
        )
        name = "Predictor"
    if name == "Predictor":
        from detector.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
