"""The report on one model and one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detector.evaluation.errors import ErrorAnalysis
from detector.evaluation.metrics import Metrics
from detector.evaluation.statistics import Interval
from detector.reports.gallery import Example
from detector.reports.study import Curve, Losses, OffsetCurve


@dataclass(frozen=True)
class RunReport:
    """The contents of a report on one model and one dataset.

    `title` names both; `notes` are anything else to know; `interval` is that of AP. Where they are known,
    `curve` and `losses` are those of the training, `offsets` those of the deformable layers, and `examples`
    the worst images.
    """

    title: str
    metrics: Metrics
    errors: ErrorAnalysis
    class_names: Sequence[str]
    num_images: int
    interval: Interval | None = None
    notes: Sequence[str] = ()
    curve: Curve | None = None
    losses: Losses | None = None
    offsets: Mapping[str, OffsetCurve] = field(default_factory=dict)
    examples: Sequence[Example] = ()
