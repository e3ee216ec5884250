"""The metrics of an evaluation: COCO's twelve, others of the same curves, and those of users' classes."""

from __future__ import annotations

import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from detector.evaluation.matching import IOUS, Matched
from detector.exceptions import SharedError

UNDEFINED = -1.0  # as in pycocotools: there is no object to find


@dataclass(frozen=True)
class MetricSpec:
    """The description of a metric, which covers objects of one `area`.

    Files and logs use its `name`, tables its `label` and `format`. `by_class` gives it a column in the tables
    of classes and a row in comparisons; `in_log` makes it one of the few that are reported after each epoch.
    """

    name: str
    label: str
    higher_is_better: bool = True
    format: str = ".4f"
    by_class: bool = False
    in_log: bool = False
    area: Literal["all", "small", "medium", "large"] = "all"

    def rank(self, value: float) -> float:
        """Return a number that is lower for better values."""
        if value == UNDEFINED:
            return math.inf
        return -value if self.higher_is_better else value

    def shown(self, value: float) -> str:
        return "-" if value == UNDEFINED else f"{value:{self.format}}"


@dataclass(frozen=True)
class CurveMetric(MetricSpec):
    """The precision or recall at one `iou`, or averaged over IoU 0.50:0.95.

    At most `limit` detections per image and class count; for keypoints 100 stand for `KEYPOINT_LIMIT`.
    """

    kind: Literal["precision", "recall"] = "precision"
    iou: float | None = None
    limit: Literal[1, 10, 20, 100] = 100

    def __post_init__(self) -> None:
        if self.iou is not None and not math.isclose(IOUS[self.ious][0], self.iou):
            shown = ", ".join(f"{iou:.2f}" for iou in IOUS)
            raise ValueError(f"iou={self.iou} of the metric {self.name}: expected one of {shown}, or null.")

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


class Metric(ABC):
    """A metric of a user's own, named in `evaluation.metrics`, with one value or several.

    `specs` describe the values.
    """

    @property
    @abstractmethod
    def specs(self) -> Sequence[MetricSpec]: ...

    @abstractmethod
    def compute(self, matched: Matched) -> Mapping[str, float]:
        """Return a number for the name of each spec, -1 where it is undefined, over `matched.classes`.

        These are all classes, or one, for the specs with `by_class`. In a comparison they hold images drawn
        with replacement, each copy an image of its own: take the number of images from `objects`.
        """


def described(
    metrics: Mapping[str, Metric | CurveMetric], own: Sequence[MetricSpec]
) -> tuple[MetricSpec, ...]:
    """Return the specs of a task's `own` metrics and more; raise ValueError for names that are taken."""
    specs = {spec.name: spec for spec in own}
    for key, metric in metrics.items():
        if isinstance(metric, CurveMetric) and metric.limit == 20:
            raise ValueError(
                f"evaluation.metrics.{key}: limit=20 is that of keypoints. Write 100 for all tasks."
            )
        for spec in [metric] if isinstance(metric, CurveMetric) else metric.specs:
            if not isinstance(spec, MetricSpec):
                raise ValueError(
                    f"evaluation.metrics.{key}: {_class_of(metric)}.specs has {spec!r}, expected MetricSpec."
                )
            if spec.name in (*specs, *_BESIDE_VALUES) or spec.name.startswith("loss"):
                raise ValueError(
                    f"evaluation.metrics.{key}: {_class_of(metric)} names a metric {spec.name}, as another "
                    f"metric, a loss or an entry of metrics.json is named. Choose another name."
                )
            specs[spec.name] = spec
    return tuple(specs.values())


def computed(key: str, metric: Metric, matched: Matched) -> dict[str, float]:
    """Return the values of a metric; raise SharedError, which names it and its class, if it has none."""
    names = [spec.name for spec in metric.specs]
    where = f"evaluation.metrics.{key}: {_class_of(metric)}.compute"
    try:
        values = metric.compute(matched)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[:2][-1]  # in the class, not in what it calls
        raise SharedError(
            f"{where} raised {type(error).__name__}: {error} ({place.filename}, line {place.lineno})."
        ) from error
    is_complete = isinstance(values, Mapping) and values.keys() == {*names}
    if not is_complete or not all(isinstance(v, Real) and math.isfinite(v) for v in values.values()):
        raise SharedError(f"{where} returned {values!r}: expected a finite number for {', '.join(names)}.")
    return {name: float(values[name]) for name in names}


def _class_of(metric: object) -> str:
    return f"{type(metric).__module__}.{type(metric).__qualname__}"


COCO_METRICS = (  # in the order of COCO's own summary
    CurveMetric("AP", "AP", by_class=True, in_log=True),
    CurveMetric("AP50", "AP50", iou=0.5, by_class=True, in_log=True),
    CurveMetric("AP75", "AP75", iou=0.75, by_class=True, in_log=True),
    CurveMetric("APs", "APs", area="small", by_class=True),
    CurveMetric("APm", "APm", area="medium", by_class=True),
    CurveMetric("APl", "APl", area="large", by_class=True),
    CurveMetric("AR1", "AR1", kind="recall", limit=1),
    CurveMetric("AR10", "AR10", kind="recall", limit=10),
    CurveMetric("AR100", "AR100", kind="recall", by_class=True),
    CurveMetric("ARs", "ARs", kind="recall", area="small"),
    CurveMetric("ARm", "ARm", kind="recall", area="medium"),
    CurveMetric("ARl", "ARl", kind="recall", area="large"),
)
METRIC_NAMES = tuple(spec.name for spec in COCO_METRICS)
BY_CLASS = tuple(spec for spec in COCO_METRICS if spec.by_class)
IN_LOG = tuple(spec for spec in COCO_METRICS if spec.in_log)
MONITORED = COCO_METRICS[0]  # decides which epoch is the best
_BESIDE_VALUES = ("per_class", "notes")  # in metrics.json


@dataclass(frozen=True)
class Metrics:
    """The values of metrics by name, also as attributes: COCO's in [0, 1], or -1 where they are undefined.

    AP and AR average over IoU 0.50:0.95; AP50 and AP75 are at one IoU. The suffixes s, m and l stand for
    areas below 32^2, up to 96^2 and above, in pixels of the image file. AR1, AR10 and AR100 allow that many
    detections per image and class. pycocotools gives -1 where no object of the size (or class) exists; it is
    kept because zero would read as failure. `per_class` holds the values for each class name, `notes`
    anything else to know about them, `specs` describe the `values`.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]
    notes: Sequence[str] = ()
    specs: Sequence[MetricSpec] = COCO_METRICS

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], specs: Sequence[MetricSpec] = COCO_METRICS) -> Metrics:
        """Read what `to_dict` returned, in this or another version, with these or other metrics.

        Values without a spec are kept under their names, and a note names the `specs` without a value.
        """
        values = {name: value for name, value in content.items() if name not in _BESIDE_VALUES}
        known = {spec.name: spec for spec in specs}
        absent = ", ".join(name for name in known if name not in values)
        notes = [f"metrics.json was written without {absent}"] if absent else []
        return cls(
            values,
            content["per_class"],
            (*content.get("notes", ()), *notes),
            tuple(known.get(name, MetricSpec(name, name)) for name in values),
        )

    def __getattr__(self, name: str) -> float:
        values: Mapping[str, float] = self.__dict__.get("values", {})  # none yet while it is copied
        if name in values:
            return values[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON, with all digits."""
        per_class = {name: dict(values) for name, values in self.per_class.items()}
        return {**self.values, "per_class": per_class, "notes": [*self.notes]}
