"""The types that reports, runs and comparisons share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detector.evaluation.errors import ErrorAnalysis
from detector.evaluation.metrics import MONITORED
from detector.evaluation.statistics import Comparison
from detector.evaluation.tasks import NOUNS
from detector.option_types import TaskName
from detector.profiling.latency import Latency


@dataclass(frozen=True)
class Curve:
    """The epochs of a run: their numbers, validation AP and time, the images seen and the peak memory.

    `ap` is None for an epoch without validation. The images seen, the steps (empty where unknown) and the
    peak memory (None where unknown) count from the first epoch.
    """

    epochs: tuple[int, ...]
    ap: tuple[float | None, ...]
    seconds: tuple[float, ...]
    images_per_second: tuple[float, ...]
    images_seen: tuple[int, ...]
    peak_memory_mb: tuple[float | None, ...]
    steps: tuple[int, ...] = ()

    @property
    def best(self) -> int | None:
        """The place of the epoch whose checkpoint is the best: the last one with the highest AP."""
        known = [(ap, place) for place, ap in enumerate(self.ap) if ap is not None]
        return max(known)[1] if known else None


@dataclass(frozen=True)
class Losses:
    """The learning rate and losses of a run by epoch.

    The losses are `loss`, the total, and its terms by name; None where there was none. `steps` are the last
    of each epoch; `by_step` holds the training losses that were logged, as steps and values.
    """

    epochs: Sequence[int]
    lr: Sequence[float]
    train: Mapping[str, Sequence[float | None]]
    val: Mapping[str, Sequence[float | None]]
    steps: Sequence[int] = ()
    by_step: Mapping[str, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class OffsetCurve:
    """The logged statistics of a deformable layer, by name, at the last step of each of `epochs`.

    None where there was none.
    """

    epochs: tuple[int, ...]
    statistics: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class ModelSize:
    """The size of a model: its parameters, operations and activations.

    The operations, in matrix products and in sampling, and the bytes that training keeps for the backward
    pass are for one image of the data's size.
    """

    parameters: int
    matrix_flops: int
    sampling_flops: int
    activation_bytes: int


@dataclass(frozen=True)
class Condition:
    """The comparisons of variants with the first, `baseline`, on the same images.

    All mappings are by variant, `metrics` and `curves` also by seed. `shown_runs` says which run of each
    variant `errors` describe, where there are several; `is_trained` says that the runs were trained by this
    project and are not results files. `metric` decides, by the name that files have: segm/AP for masks,
    which are then the `task` that is compared. `others` are the comparisons by the other tasks that all runs
    have, which decide nothing.
    """

    name: str
    baseline: str
    comparisons: Mapping[str, Comparison]
    notes: Sequence[str] = ()
    curves: Mapping[str, Mapping[int, Curve]] | None = None
    sizes: Mapping[str, ModelSize] | None = None
    latencies: Mapping[str, Sequence[Latency]] | None = None
    metrics: Mapping[str, Mapping[int, Mapping[str, float | None]]] = field(default_factory=dict)
    errors: Mapping[str, ErrorAnalysis] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    shown_runs: Mapping[str, str] = field(default_factory=dict)
    is_trained: bool = True
    metric: str = MONITORED.name
    task: TaskName = "bbox"
    others: Mapping[TaskName, Mapping[str, Comparison]] = field(default_factory=dict)

    def by_task(self, variant: str) -> list[tuple[str, Comparison]]:
        """Return the comparisons of a variant by each task, with the task's noun if there are several."""
        if not self.others:
            return [("", self.comparisons[variant])]
        of_all = {self.task: self.comparisons, **self.others}
        return [(NOUNS[task], comparisons[variant]) for task, comparisons in of_all.items()]

    @property
    def errors_of(self) -> str:
        """The runs that the errors and images are from; empty if each variant has only one run."""
        if len(set(self.shown_runs.values())) == 1:
            return next(iter(self.shown_runs.values()))
        return "; ".join(f"{variant}: {run}" for variant, run in self.shown_runs.items())


@dataclass(frozen=True)
class Study:
    """The result of one `detector compare`, which is written to comparison.json."""

    name: str
    conditions: Sequence[Condition]
