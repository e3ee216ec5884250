"""A metric from the matched detections: the share of the objects that no detection matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detector.evaluation import Matched, Metric, MetricSpec


@dataclass(frozen=True)
class Missed(Metric):
    """Counts objects of all areas at one of the ten IoUs from 0.50."""

    iou: float = 0.5

    @property
    def specs(self) -> Sequence[MetricSpec]:
        name = f"Missed{100 * self.iou:.0f}"
        spec = MetricSpec(
            name, f"missed at {self.iou:.2f}", higher_is_better=False, by_class=True, in_log=True
        )
        return [spec]

    def compute(self, matched: Matched) -> Mapping[str, float]:
        place = round((self.iou - 0.5) / 0.05)
        objects = sum(int(one.objects[0].sum()) for one in matched.classes)
        hits = sum(
            int(np.count_nonzero(one.matched[0, place] & ~one.ignored[0, place])) for one in matched.classes
        )
        return {self.specs[0].name: 1 - hits / objects if objects else -1.0}
