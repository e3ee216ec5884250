"""What there is to say of one model on one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detector.evaluation import CocoMetrics, ErrorAnalysis
from detector.reports.comparison import Curve
from detector.reports.gallery import Example
from detector.reports.offsets import OffsetCurve


@dataclass(frozen=True)
class RunReport:
    """`title` says of what on what; `curve` is that of its training, `offsets` those of its deformable
    layers, `examples` its worst images, where they are known."""

    title: str
    metrics: CocoMetrics
    errors: ErrorAnalysis
    class_names: Sequence[str]
    num_images: int
    curve: Curve | None = None
    offsets: Mapping[str, OffsetCurve] = field(default_factory=dict)
    examples: Sequence[Example] = ()
