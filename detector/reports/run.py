"""What there is to say of one model on one dataset."""

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
    """`title` says of what on what, `notes` what else to know, `interval` is that of AP; `curve` and `losses`
    are those of its training, `offsets` those of its deformable layers, `examples` its worst images, where
    they are known."""

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
