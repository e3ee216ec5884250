"""Learning-rate schedules: pure functions of the step, with a linear warm-up."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from detector.option_types import Fraction, NonNegativeInt, PositiveInt

_LONGEST_WARMUP = 1 / 3  # share of the run; a longer warm-up is shortened, and `notes` says so


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine over all steps, from 1 to `final_factor` (Loshchilov and Hutter 2017).

    A linear warm-up from `warmup_factor` to 1 multiplies the first `warmup_steps`.
    """

    warmup_steps: NonNegativeInt = 500
    warmup_factor: Fraction = 0.001
    final_factor: Fraction = 0.0

    def factor(
        self, step: NonNegativeInt, *, total_steps: PositiveInt, steps_per_epoch: PositiveInt
    ) -> float:
        """Return the factor of the learning rate at optimizer step `step` (from 0)."""
        progress = min(step / total_steps, 1.0)
        curve = self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * progress)) / 2
        return curve * _warmup(step, steps=warmup_length(self, total_steps), start=self.warmup_factor)

    def notes(self, *, total_steps: PositiveInt, steps_per_epoch: PositiveInt) -> list[str]:
        """Return notes for the user on this schedule in a run of this length."""
        return _warmup_notes(self, total_steps)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """A constant rate, multiplied by `gamma` after each of the epochs in `milestones`.

    A linear warm-up from `warmup_factor` to 1 multiplies the first `warmup_steps`.
    """

    milestones: tuple[PositiveInt, ...]
    gamma: Fraction = 0.1
    warmup_steps: NonNegativeInt = 500
    warmup_factor: Fraction = 0.001

    def __post_init__(self) -> None:
        if any(a >= b for a, b in pairwise(self.milestones)):
            raise ValueError(
                f"milestones must be epochs in increasing order such as [8, 11], got {list(self.milestones)}."
                " Fix lr_scheduler.milestones."
            )

    def factor(
        self, step: NonNegativeInt, *, total_steps: PositiveInt, steps_per_epoch: PositiveInt
    ) -> float:
        """Return the factor of the learning rate at optimizer step `step` (from 0)."""
        curve = self.gamma ** bisect_right(self.milestones, step // steps_per_epoch)
        return curve * _warmup(step, steps=warmup_length(self, total_steps), start=self.warmup_factor)

    def notes(self, *, total_steps: PositiveInt, steps_per_epoch: PositiveInt) -> list[str]:
        """Return notes for the user on this schedule in a run of this length."""
        epochs = math.ceil(total_steps / steps_per_epoch)
        late = [milestone for milestone in self.milestones if milestone >= epochs]
        unreached = [
            f"the learning rate is not lowered after epoch {', '.join(map(str, late))}, the run has {epochs}:"
            " change lr_scheduler.milestones or training.max_epochs"
        ]
        return _warmup_notes(self, total_steps) + (unreached if late else [])


LRScheduler = Cosine | MultiStep


def warmup_length(lr_scheduler: LRScheduler, total_steps: int) -> int:
    """Return the number of warm-up steps: `warmup_steps`, but at most a third of the run."""
    return min(lr_scheduler.warmup_steps, int(total_steps * _LONGEST_WARMUP))


def _warmup(step: int, *, steps: int, start: float) -> float:
    return start + (1 - start) * step / steps if step < steps else 1.0


def _warmup_notes(lr_scheduler: LRScheduler, total_steps: int) -> list[str]:
    length = warmup_length(lr_scheduler, total_steps)
    if length == lr_scheduler.warmup_steps:
        return []
    return [
        f"the warm-up takes {length} steps instead of "
        f"lr_scheduler.warmup_steps={lr_scheduler.warmup_steps}: a third of the run's {total_steps}"
    ]
