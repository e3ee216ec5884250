"""The metrics of the COCO box task: the one list that tables, logs and comparisons draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detector.evaluation.matching import IOUS


@dataclass(frozen=True)
class MetricSpec:
    """A metric: the precision or recall at one `iou`, or averaged over IoU 0.50:0.95.

    It covers objects of one `area` and at most `limit` detections per image and class. Files and logs use its
    `name`, tables its `label` and `format`. `by_class` gives it a column in the tables of classes and a row
    in comparisons; `in_log` makes it one of the few that are reported after each epoch.
    """

    name: str
    label: str
    kind: Literal["precision", "recall"]
    iou: float | None = None
    area: str = "all"
    limit: int = 100
    higher_is_better: bool = True
    format: str = ".4f"
    by_class: bool = False
    in_log: bool = False

    @property
    def ious(self) -> slice:
        """The slice of `IOUS` that the metric covers."""
        if self.iou is None:
            return slice(None)
        place = int(abs(IOUS - self.iou).argmin())
        return slice(place, place + 1)

    @property
    def iou_label(self) -> str:
        return "0.50:0.95" if self.iou is None else f"{self.iou:.2f}"

    def rank(self, value: float) -> float:
        """Return a number that is lower for better values."""
        return -value if self.higher_is_better else value

    def shown(self, value: float) -> str:
        return "-" if value < 0 else f"{value:{self.format}}"


COCO_METRICS = (  # in the order of COCO's own summary
    MetricSpec("AP", "AP", "precision", by_class=True, in_log=True),
    MetricSpec("AP50", "AP50", "precision", iou=0.5, by_class=True, in_log=True),
    MetricSpec("AP75", "AP75", "precision", iou=0.75, by_class=True, in_log=True),
    MetricSpec("APs", "APs", "precision", area="small", by_class=True),
    MetricSpec("APm", "APm", "precision", area="medium", by_class=True),
    MetricSpec("APl", "APl", "precision", area="large", by_class=True),
    MetricSpec("AR1", "AR1", "recall", limit=1),
    MetricSpec("AR10", "AR10", "recall", limit=10),
    MetricSpec("AR100", "AR100", "recall", by_class=True),
    MetricSpec("ARs", "ARs", "recall", area="small"),
    MetricSpec("ARm", "ARm", "recall", area="medium"),
    MetricSpec("ARl", "ARl", "recall", area="large"),
)
METRIC_NAMES = tuple(spec.name for spec in COCO_METRICS)
BY_CLASS = tuple(spec for spec in COCO_METRICS if spec.by_class)
IN_LOG = tuple(spec for spec in COCO_METRICS if spec.in_log)
MONITORED = COCO_METRICS[0]  # decides which epoch is the best


@dataclass(frozen=True, init=False)
class Metrics:
    """The values of `COCO_METRICS` as attributes, in [0, 1], or -1 where they are undefined.

    AP and AR average over IoU 0.50:0.95; AP50 and AP75 are at one IoU. The suffixes s, m and l stand for
    areas below 32^2, up to 96^2 and above, in pixels of the image file. AR1, AR10 and AR100 allow that many
    detections per image and class. pycocotools gives -1 where no object of the size (or class) exists; it is
    kept because zero would read as failure. `per_class` holds the same values for each class name, `notes`
    anything else to know about them.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]
    notes: Sequence[str]

    def __init__(
        self, *, per_class: Mapping[str, Mapping[str, float]], notes: Sequence[str] = (), **values: float
    ) -> None:
        if values.keys() != {*METRIC_NAMES}:
            raise TypeError(f"expected {', '.join(METRIC_NAMES)}, got {', '.join(values)}")
        for name, value in (("values", values), ("per_class", per_class), ("notes", notes)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> float:
        if name in METRIC_NAMES:
            return self.values[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON, with all digits."""
        per_class = {name: dict(values) for name, values in self.per_class.items()}
        return {**self.values, "per_class": per_class, "notes": [*self.notes]}
