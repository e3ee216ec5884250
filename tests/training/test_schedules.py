"""Schedule values at points known by hand."""

from __future__ import annotations

import pytest

from detector.training.schedules import Cosine, MultiStep

RUN = {"total_steps": 1000, "steps_per_epoch": 100}


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (250, 0.853553), (500, 0.5), (1000, 0.0)])
def test_cosine_without_warmup(step: int, expected: float) -> None:
    assert Cosine(warmup_steps=0).factor(step, **RUN) == pytest.approx(expected, abs=1e-6)


def test_cosine_ends_at_its_final_factor() -> None:
    assert Cosine(warmup_steps=0, final_factor=0.1).factor(1000, **RUN) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (799, 1.0), (800, 0.1), (899, 0.1), (900, 0.01), (999, 0.01)]
)
def test_multistep_falls_at_the_start_of_the_epoch_after_each_milestone(step: int, expected: float) -> None:
    schedule = MultiStep(milestones=(8, 9), warmup_steps=0)
    assert schedule.factor(step, **RUN) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.2), (50, 0.6), (99, 0.992), (100, 1.0)])
def test_warmup_is_a_line_from_its_factor_to_one(step: int, expected: float) -> None:
    schedule = MultiStep(milestones=(9,), warmup_steps=100, warmup_factor=0.2)
    assert schedule.factor(step, **RUN) == pytest.approx(expected)


def test_warmup_multiplies_the_cosine() -> None:
    with_warmup = Cosine(warmup_steps=100, warmup_factor=0.0).factor(50, **RUN)
    assert with_warmup == pytest.approx(0.5 * Cosine(warmup_steps=0).factor(50, **RUN))


def test_long_warmup_is_shortened_to_a_third_of_the_run() -> None:
    schedule = MultiStep(milestones=(1,), gamma=1.0, warmup_steps=500, warmup_factor=0.0)
    assert [schedule.factor(step, total_steps=30, steps_per_epoch=30) for step in (5, 10)] == [0.5, 1.0]


def test_shortened_warmup_is_said() -> None:
    (note,) = Cosine(warmup_steps=500).notes(total_steps=30, steps_per_epoch=10)
    assert "10 steps" in note
    assert "lr_scheduler.warmup_steps=500" in note


def test_warmup_that_fits_is_not_mentioned() -> None:
    assert Cosine(warmup_steps=300).notes(**RUN) == []


def test_unreached_milestones_are_said() -> None:
    (note,) = MultiStep(milestones=(8, 11), warmup_steps=0).notes(**RUN)
    assert "after epoch 11" in note


def test_milestones_out_of_order_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\[11, 8\]"):
        MultiStep(milestones=(11, 8))
