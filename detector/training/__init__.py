"""Training: optimisation, schedules, the Lightning module, its callbacks and checkpoints."""

from detector.training.averaging import WeightAverage
from detector.training.callbacks import Checkpoints, EpochLog, RunLog, write_rows
from detector.training.checkpoint import AtomicCheckpointIO, Checkpoint, ModelRecord, load_checkpoint
from detector.training.displays import LineDisplay, TerminalDisplay
from detector.training.module import DetectionModule, NonFiniteLossError, RunLength, Validation
from detector.training.offsets import OffsetLog
from detector.training.optimization import SGD, AdamW, scaled_lr
from detector.training.ranks import RankEndedError, ending_together
from detector.training.schedules import Cosine, MultiStep
from detector.training.trainer import TrainingOptions, build_trainer

__all__ = [
    "SGD",
    "AdamW",
    "AtomicCheckpointIO",
    "Checkpoint",
    "Checkpoints",
    "Cosine",
    "DetectionModule",
    "EpochLog",
    "LineDisplay",
    "ModelRecord",
    "MultiStep",
    "NonFiniteLossError",
    "OffsetLog",
    "RankEndedError",
    "RunLength",
    "RunLog",
    "TerminalDisplay",
    "TrainingOptions",
    "Validation",
    "WeightAverage",
    "build_trainer",
    "ending_together",
    "load_checkpoint",
    "scaled_lr",
    "write_rows",
]
