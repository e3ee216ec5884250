"""What runs and comparisons of them are made of: the types that reports, runs and comparisons share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detector.evaluation.errors import ErrorAnalysis
from detector.evaluation.statistics import Comparison
from detector.profiling.latency import Latency


@dataclass(frozen=True)
class Curve:
    """The epochs of a run: their numbers, validation AP (None without a validation) and time; the images and
    the peak of memory (None where it is not known) from the first epoch on."""

    epochs: tuple[int, ...]
    ap: tuple[float | None, ...]
    seconds: tuple[float, ...]
    images_per_second: tuple[float, ...]
    images_seen: tuple[int, ...]
    peak_memory_mb: tuple[float | None, ...]


@dataclass(frozen=True)
class Losses:
    """The learning rate and losses of a run by epoch: `loss`, the total, and its terms by name, None where
    there was none."""

    epochs: Sequence[int]
    lr: Sequence[float]
    train: Mapping[str, Sequence[float | None]]
    val: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class OffsetCurve:
    """A deformable layer at the last step of each of `epochs`: the `statistics` that training logs, by name;
    None where there was none."""

    epochs: tuple[int, ...]
    statistics: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class ModelSize:
    """The size of a model: parameters; for one image of the data's size, the operations in matrix products
    and in sampling, and the bytes that training keeps for its backward pass."""

    parameters: int
    matrix_flops: int
    sampling_flops: int
    activation_bytes: int


@dataclass(frozen=True)
class Point:
    """Arms against the first, `baseline`, on the same images; by arm, `metrics` and `curves` by seed, too.

    `shown_runs` says which run of each arm `errors` are of, where there are several; `is_trained` that the
    runs are trainings of this project, not results files.
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

    @property
    def errors_of(self) -> str:
        """Which runs the errors and images are of; empty where each arm has one alone."""
        if len(set(self.shown_runs.values())) == 1:
            return next(iter(self.shown_runs.values()))
        return "; ".join(f"{arm}: {run}" for arm, run in self.shown_runs.items())


@dataclass(frozen=True)
class Study:
    """What one `detector compare` found: it is written to comparison.json."""

    name: str
    points: Sequence[Point]
