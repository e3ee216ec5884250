"""Object detection with deformable convolution: train, evaluate and compare on COCO-format data."""

from typing import TYPE_CHECKING

from detector.version import __version__

if TYPE_CHECKING:
    from detector.api import Comparison, Run, compare, evaluate, export, predict, train
    from detector.exceptions import DetectorError
    from detector.predictor import Predictor

_API = ("Comparison", "Run", "compare", "evaluate", "export", "predict", "train")
__all__ = [
    "Comparison",
    "DetectorError",
    "Predictor",
    "Run",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "predict",
    "train",
]


def __getattr__(name: str) -> object:
    """A public name, imported when it is asked for: the command line must answer before torch is there."""
    if name == "Detector":
        import warnings

        warnings.warn(
            "detector.Detector is called detector.Predictor; the old name goes with the next version.",
            FutureWarning,
            stacklevel=2,
        )
        name = "Predictor"
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = {"Predictor": "predictor", "DetectorError": "exceptions"}.get(name, "api")
    return getattr(import_module(f"detector.{home}"), name)
