"""The contents of the report on one model and one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detector.evaluation.errors import ClassCurve, ErrorAnalysis
from detector.evaluation.metrics import Metrics
from detector.evaluation.statistics import Interval
from detector.option_types import TaskName
from detector.reports.boxes import Boxes
from detector.reports.study import Curve, Losses, OffsetCurve


@dataclass(frozen=True)
class Head:
    """The names of model and data, which make the title, facts by name, and the configuration as YAML."""

    model: str
    data: str
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    config: str = ""

    @property
    def title(self) -> str:
        return f"{self.model} on {self.data}"


@dataclass(frozen=True)
class RunReport:
    """The contents of a report on one model and one dataset.

    `class_curves` and `class_names` are in the order of the classes. `notes` are anything else to know;
    `interval` is that of AP. Where they are known, `curve` and `losses` are those of the training, `offsets`
    those of the deformable layers, `gallery` the images for the page's script, `batches` images as the model
    sees them, and `splits` the boxes of each split by its name. `task` is what was evaluated.
    """

    head: Head
    metrics: Metrics
    errors: ErrorAnalysis
    class_curves: Sequence[ClassCurve]
    class_names: Sequence[str]
    num_images: int
    interval: Interval | None = None
    notes: Sequence[str] = ()
    curve: Curve | None = None
    losses: Losses | None = None
    offsets: Mapping[str, OffsetCurve] = field(default_factory=dict)
    gallery: Mapping[str, Any] | None = None
    batches: Mapping[str, Any] | None = None
    splits: Mapping[str, Boxes] = field(default_factory=dict)
    task: TaskName = "bbox"
