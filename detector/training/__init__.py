"""Training: optimization, schedules, the Lightning module and its callbacks."""

from detector.lazy import lazy_getattr

_MODULES = {
    "AdamW": "detector.training.optimization",
    "AtomicCheckpointIO": "detector.training.checkpoint_io",
    "Checkpoint": "detector.checkpoint",
    "Cosine": "detector.training.schedules",
    "DetectionModule": "detector.training.module",
    "MultiStep": "detector.training.schedules",
    "SGD": "detector.training.optimization",
    "TrainingOptions": "detector.training.trainer",
    "load_checkpoint": "detector.checkpoint",
}
__all__ = [*_MODULES]
__getattr__ = lazy_getattr(__name__, _MODULES)
